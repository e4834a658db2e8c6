#!/usr/bin/perl
# A relay with faults: tcp connections to LISTEN are passed on to TO, and what it is told on standard input happens to them.
#   relay.pl LISTEN_ADDRESS PORT TO_ADDRESS PORT    a PORT of 0 to listen on is any, and is printed
#   flip     one bit of the next bytes that pass, in either direction, changes
#   cut      all connections end, in the middle of whatever passes
#   stall S  nothing passes for S seconds
use strict;
use warnings;
use Errno qw(EAGAIN EINTR);
use IO::Select;
use IO::Socket::INET;
use Socket qw(IPPROTO_TCP TCP_NODELAY);
use Time::HiRes qw(time);

my ($address, $port, $to, $to_port) = @ARGV;
my $most = 1 << 20; # bytes kept for one who does not read
my $door = IO::Socket::INET->new(Listen => 64, LocalAddr => $address, LocalPort => $port, ReuseAddr => 1)
	or die "relay: $address:$port: $!\n";
my (%peer, %waiting, $flip, $stalled);
my ($readable, $writable) = (IO::Select->new(\*STDIN, $door), IO::Select->new);
$SIG{PIPE} = 'IGNORE';
$| = 1;
print $door->sockport, "\n" unless $port;
srand($ENV{MOE_CHAOS_SEED} // 0);

sub end {
	for my $s (grep { defined } $_[0], delete $peer{$_[0]}) {
		delete $peer{$s};
		delete $waiting{$s};
		$_->remove($s) for $readable, $writable;
		close $s;
	}
}

sub open_pair {
	my $from = $door->accept or return;
	my $there = IO::Socket::INET->new(PeerAddr => $to, PeerPort => $to_port, Timeout => 1);
	return close $from unless $there;
	@peer{$from, $there} = ($there, $from);
	@waiting{$from, $there} = ('', '');
	for my $s ($from, $there) {
		$s->blocking(0);
		setsockopt($s, IPPROTO_TCP, TCP_NODELAY, 1);
		$readable->add($s);
	}
}

sub obey {
	my $n = sysread(STDIN, my $words, 4096);
	exit 0 unless $n;
	for (split /\n/, $words) {
		$flip++ if /^flip/;
		$stalled = time + $1 if /^stall ([\d.]+)/;
		if (/^cut/) { end($_) for grep { $peer{$_} } $readable->handles }
	}
}

sub push_on {
	my $s = shift;
	my $n = syswrite($s, $waiting{$s});
	return end($s) if !defined $n && $! != EAGAIN && $! != EINTR;
	substr($waiting{$s}, 0, $n // 0, '');
	$waiting{$s} eq '' ? $writable->remove($s) : $writable->add($s);
	$readable->add($peer{$s}) if length $waiting{$s} < $most;
}

# Short messages are handshakes and heartbeats; a flip waits for more.
sub pass {
	my $s = shift;
	my $other = $peer{$s};
	my $n = sysread($s, my $bytes, 65536);
	return if !defined $n && ($! == EAGAIN || $! == EINTR);
	return end($s) unless $n;
	if ($flip && $n > 512) {
		my $at = int rand $n;
		substr($bytes, $at, 1) ^= chr(1 << int rand 8);
		$flip--;
	}
	$waiting{$other} .= $bytes;
	$readable->remove($s) if length $waiting{$other} >= $most;
	push_on($other);
}

while (1) {
	my $left = defined $stalled ? $stalled - time : 0;
	if ($left > 0) {
		obey() if IO::Select->new(\*STDIN)->can_read($left);
		next;
	}
	$stalled = undef;
	my ($in, $out) = IO::Select->select($readable, $writable);
	for my $s (@$in) {
		if ($s == \*STDIN) { obey() }
		elsif ($s == $door) { open_pair() }
		elsif ($peer{$s}) { pass($s) }
	}
	$peer{$_} and push_on($_) for @$out;
}
