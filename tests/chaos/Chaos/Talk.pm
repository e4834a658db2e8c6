# moe-route -p, again and again: its text must stay the same, and the time between two pieces of it is what a reader waits.
package Chaos::Talk;
use strict;
use warnings;
use Time::HiRes qw(time);

# %o: loop, fleet, prompt, tokens, dir, forgiving (1: a run may fail).
sub new {
	my ($class, %o) = @_;
	return bless {%o, name => 'talk', runs => 0, gaps => [], stall => 0, different => 0, failed => 0, notes => []}, $class;
}

sub run {
	my $s = shift;
	my ($text, $last) = ('', undef);
	$s->{runs}++;
	$s->{pid} = $s->{loop}->spawn(
		command => [$s->{fleet}->route('-p', $s->{prompt}, '-n', $s->{tokens}, '--ignore-eos', '--temp', 0)],
		err => "$s->{dir}/talk.err",
		read => sub {
			my $now = time;
			return unless defined $_[0];
			push @{$s->{gaps}}, $now - $last if defined $last;
			$s->{stall} = $now - $last if defined $last && $s->{reference} && $now - $last > $s->{stall};
			$last = $now;
			$text .= $_[0];
		},
		end => sub { $s->_end($text, shift) });
}

sub _last_words {
	my $s = shift;
	open my $in, '<', "$s->{dir}/talk.err" or return '';
	my @lines = <$in>;
	return substr($lines[-1] // '', 0, 200) =~ s/\n//r;
}

sub _end {
	my ($s, $text, $status) = @_;
	$s->{pid} = undef;
	if ($status) {
		$s->{failed}++;
		push @{$s->{notes}}, "talk: status $status, " . $s->_last_words unless $s->{forgiving};
	} elsif (defined $s->{reference} && $text ne $s->{reference}) {
		$s->{different}++;
		push @{$s->{notes}}, 'talk: another text';
	}
	$s->{reference} //= $text unless $status;
	$s->run if $s->{again};
}

1;
