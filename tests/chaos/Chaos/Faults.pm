# What can happen to a fleet.  Each fault hurts one server (or, one after the other, all), for a random while.
package Chaos::Faults;
use strict;
use warnings;

# kind => [what it needs, what it does].
my %kinds = (
	kill => ['', \&_kill],         # SIGKILL, and a new start
	stop => ['', \&_stop],         # SIGSTOP, SIGCONT
	rolling => ['', \&_rolling],   # SIGTERM and a new start, of all in turn
	link => ['netns', \&_link],    # its cable is unplugged, and plugged in
	mute => ['netns', \&_mute],    # it hears, and what it says is lost
	flip => ['relay', \&_flip],    # a bit on the way changes
	cut => ['relay', \&_cut],      # its connections end in the middle of a message
	stall => ['relay', \&_stall],  # nothing passes for a while, and nothing is lost
	disk => ['tmpfs', \&_disk],    # the file system of logs, ready files and usage files is full
);

sub kinds { sort keys %kinds }

# %o: loop, fleet, net, disk, last_copy (1: the last copy of an expert may go), have ({needs => 1}), kinds (list; those that are not
# possible here are left out).
sub new {
	my ($class, %o) = @_;
	my $x = bless {%o, count => {}, left_out => []}, $class;
	for my $kind (@{$o{kinds}}) {
		die "no fault is called '$kind'; there are: @{[kinds()]}\n" unless $kinds{$kind};
		my $needs = $kinds{$kind}[0];
		push @{$x->{$needs eq '' || $o{have}{$needs} ? 'possible' : 'left_out'}}, $kind;
	}
	die "none of these faults is possible here\n" unless $x->{possible};
	return $x;
}

sub _between { my ($low, $high) = @_; $low + rand($high - $low) }

# A random fault, to a server that can be spared; and again after a pause, until `over`.
sub next {
	my $x = shift;
	return if $x->{over};
	my $kind = $x->{possible}[int rand @{$x->{possible}}];
	my $i = int rand $x->{fleet}{servers};
	$x->inject($kind, $i) if $x->_spared($kind, $i);
	$x->{loop}->after(_between(0.1, 1.5), sub { $x->next });
}

sub _spared {
	my ($x, $kind, $i) = @_;
	my $f = $x->{fleet};
	return 0 unless $f->is_well($i);
	return $x->calm if $kind eq 'rolling';
	return $x->{last_copy} || $kind eq 'disk' || $f->may_hurt($i);
}

sub inject {
	my ($x, $kind, $i) = @_;
	$x->{count}{$kind}++;
	$x->{fleet}->hurt($i) unless $kind eq 'rolling';
	$kinds{$kind}[1]->($x, $i);
}

# Is nobody hurt?
sub calm { my $x = shift; !grep { $_->{hurt} } @{$x->{fleet}{server}} }

sub _kill {
	my ($x, $i) = @_;
	$x->{fleet}->finish($i, 'KILL', sub {
		$x->{loop}->after(_between(0, 3), sub { $x->{fleet}->start($i); $x->{fleet}->heal($i) });
	});
}

sub _stop {
	my ($x, $i) = @_;
	my $pid = $x->{fleet}{server}[$i]{pid};
	kill 'STOP', $pid;
	$x->{loop}->after(_between(0.2, 8), sub { kill 'CONT', $pid; $x->{fleet}->heal($i) });
}

sub _rolling {
	my ($x, $i, $n) = @_;
	$n //= $x->{fleet}{servers};
	return if $n == 0;
	$i %= $x->{fleet}{servers};
	$x->{fleet}->hurt($i);
	$x->{fleet}->finish($i, 'TERM', sub {
		push @{$x->{fleet}{fallen}}, "server $i was told to stop, and ended with status $x->{fleet}{server}[$i]{status}"
			if $x->{fleet}{server}[$i]{status};
		$x->{fleet}->start($i);
		$x->{fleet}->heal($i, sub { $x->_rolling($i + 1, $n - 1) });
	});
}

sub _link {
	my ($x, $i) = @_;
	$x->{net}->link_up($i, 0);
	$x->{loop}->after(_between(0.2, 12), sub { $x->{net}->link_up($i, 1); $x->{fleet}->heal($i) });
}

sub _mute {
	my ($x, $i) = @_;
	$x->{net}->mute($i, 1);
	$x->{loop}->after(_between(0.2, 12), sub { $x->{net}->mute($i, 0); $x->{fleet}->heal($i) });
}

# A bit of a length leaves both ends waiting for what never comes, until they miss each other's heartbeats.
sub _flip {
	my ($x, $i) = @_;
	$x->{fleet}->tell_relay($i, 'flip');
	$x->{loop}->after(_between(6, 8), sub { $x->{fleet}->heal($i) });
}

sub _cut {
	my ($x, $i) = @_;
	$x->{fleet}->tell_relay($i, 'cut');
	$x->{fleet}->heal($i);
}

sub _stall {
	my ($x, $i) = @_;
	my $s = _between(0.2, 8);
	$x->{fleet}->tell_relay($i, sprintf 'stall %.1f', $s);
	$x->{loop}->after($s, sub { $x->{fleet}->heal($i) });
}

sub _disk {
	my ($x, $i) = @_;
	my $file = "$x->{disk}/ballast-$i";
	system("dd if=/dev/zero of=$file bs=64k >/dev/null 2>&1");
	my $s = _between(0.5, 4);
	$x->{fleet}{disk_full_until} = time + $s + 1;
	$x->{loop}->after($s, sub { unlink $file; $x->{fleet}->heal($i) });
}

1;
