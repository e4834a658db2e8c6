# One moe-route after the other with the same requests: each answer is compared with the reference, and nothing may be missing.
package Chaos::Stream;
use strict;
use warnings;
use Time::HiRes qw(time);

# %o: name, loop, fleet, requests (a file), options (of moe-route), dir, patience (seconds without an answer after which it hangs),
# forgiving (1: an error with its id is an answer), excuse (words on standard error that explain a status which is not 0).
sub new {
	my ($class, %o) = @_;
	my $s = bless {%o, reference => undef, passes => 0, sent => 0, answered => 0, lost => 0, different => 0, refused => 0, turned_away => 0, stall => 0,
	               gaps => [], notes => [], retried => 0, hedged => 0}, $class;
	open my $in, '<', $s->{requests} or die "$s->{requests}: $!\n";
	/"id":(\d+)/ and $s->{ids}{$1} = 1 while <$in>;
	return $s;
}

# Ask for everything once more, until the end of the pass; `again` says whether to go on after it.
sub run {
	my $s = shift;
	my ($rest, $pass) = ('', $s->{passes}++);
	$s->{pass} = {seen => {}, last => time};
	$s->{err} = "$s->{dir}/$s->{name}-$pass.err";
	$s->{sent} += keys %{$s->{ids}};
	$s->{pid} = $s->{loop}->spawn(
		command => [$s->{fleet}->route(@{$s->{options}})], in => $s->{requests}, err => $s->{err},
		read => sub {
			$rest .= $_[0] // '';
			$s->_line($1) while $rest =~ s/^(.*)\n//;
		},
		end => sub { $s->_end(shift) });
	$s->_watch($s->{pid});
}

sub _note { my ($s, $words) = @_; push @{$s->{notes}}, "$s->{name}: $words" }

sub _line {
	my ($s, $line) = @_;
	my $p = $s->{pass};
	my $gap = time - $p->{last};
	my ($id) = $line =~ /^\{"id":(\d+)/;
	$p->{last} = time;
	push @{$s->{gaps}}, $gap;
	$s->{stall} = $gap if $s->{reference} && $gap > $s->{stall};
	return $s->_note("a line that is no answer: " . substr($line, 0, 100)) unless defined $id && $s->{ids}{$id};
	return $s->_note("$id was answered twice") if exists $p->{seen}{$id};
	$p->{seen}{$id} = $line;
	if ($line =~ /"error":\{(.*?)\}/) {
		$s->{refused}++;
		$s->_note("$id: $1") unless $s->{forgiving};
	} elsif ($s->{reference} && $line ne ($s->{reference}{$id} // '')) {
		$s->{different}++;
		$s->_note("$id is another answer");
	} else {
		$s->{answered}++;
	}
}

# An end is what moe-route owes even when nothing can be answered.
sub _watch {
	my ($s, $pid) = @_;
	$s->{loop}->after(1, sub {
		return unless ($s->{pid} // 0) == $pid;
		if (time - $s->{pass}{last} > $s->{patience}) {
			$s->_note("no answer for $s->{patience} s: killed");
			kill 'KILL', $pid;
		}
		$s->_watch($pid);
	});
}

sub _count {
	my $s = shift;
	open my $in, '<', $s->{err} or return;
	while (<$in>) {
		$s->{retried} += $1, $s->{hedged} += $2 if /messages: (\d+) sent again after a loss, (\d+) hedged/;
		$s->_note($_) if /Sanitizer|runtime error/;
		$s->{excused} = 1 if defined $s->{excuse} && /$s->{excuse}/;
	}
	close $in;
}

sub _end {
	my ($s, $status) = @_;
	my $p = delete $s->{pass};
	my $missing = grep { !exists $p->{seen}{$_} } keys %{$s->{ids}};
	my $errors = grep { /"error":\{/ } values %{$p->{seen}};
	$s->{pid} = undef;
	if ($s->{forgiving} && $status == 256 && !%{$p->{seen}}) {
		# It found no servers and said so before it read anything: no request was taken, and none is lost.
		$s->{sent} -= $missing;
		$s->{turned_away}++;
		$missing = 0;
	}
	$s->{lost} += $missing;
	$s->_note("$missing requests without a line, status $status") if $missing;
	$s->{excused} = 0;
	$s->_count;
	$s->_note("status $status with all answered") if !$missing && !$errors && $status && !$s->{excused} && %{$p->{seen}};
	$s->{reference} //= {%{$p->{seen}}} unless $missing || $errors || $status;
	unlink $s->{err} if !$missing && !$errors && !$status;
	$s->run if $s->{again};
}

1;
