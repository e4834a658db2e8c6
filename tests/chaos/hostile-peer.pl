#!/usr/bin/perl
# One hostile peer of a server: hostile-peer.pl KIND ADDRESS PORT SECONDS SEED CORPUS
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Time::HiRes qw(time sleep);
use Chaos::Zmtp;

my ($kind, $address, $port, $seconds, $seed, $corpus) = @ARGV;
my $end = time + $seconds;
$SIG{PIPE} = 'IGNORE';
$SIG{ALRM} = sub { exit 0 }; # a write that the server does not take is no reason to stay
alarm $seconds + 1;
srand $seed;

my %kinds = (deaf => \&deaf, large => \&large, empties => \&empties, malformed => \&malformed, endless => \&endless, hellos => \&hellos, pings => \&pings,
             idle => \&idle, half => \&half, noise => \&noise, comers => \&comers);
my $does = $kinds{$kind} or die "hostile-peer.pl: no peer is called '$kind'; there are: @{[sort keys %kinds]}\n";

sub dealer { Chaos::Zmtp->dealer($address, $port) }
sub random_bytes { join '', map { chr int rand 256 } 1 .. shift }

# Call it with connection after connection, each until the server has had enough or it gives up itself.
sub again {
	my $what = shift;
	while (time < $end) {
		my $z = dealer();
		$z ? $what->($z) : sleep 0.1;
	}
}

# Asks as fast as it can for as much as it may, and never reads.
sub deaf {
	again(sub {
		my $z = shift;
		my $w = Chaos::Zmtp::welcome($z) or return;
		for (my $id = 1; time < $end; $id++) {
			$z->say(Chaos::Zmtp::request($w, $id, $w->{rows} < 64 ? $w->{rows} : 64)) or return;
		}
	});
}

# Frames that say they are larger than anything that a server takes.
sub large {
	again(sub {
		my $z = shift;
		my $size = (1 << 28, 1 << 40, (1 << 62) + 1)[int rand 3];
		$z->put("\x02" . pack('Q>', $size)) or return;
		for (1 .. 64) { $z->put("\0" x 65536) or return }
	});
}

sub corpus {
	my @messages;
	for my $file (glob "$corpus/*") {
		open my $in, '<:raw', $file or next;
		my $bytes = do { local $/; <$in> };
		my ($n, @frames) = ord($bytes) % 6;
		my @sizes = unpack "x v" . ($n - 1), $bytes;
		my $at = 1 + 2 * $n;
		push(@frames, substr($bytes, $at, $_)), $at += $_ for @sizes;
		push @messages, [@frames, substr $bytes, $at];
	}
	die "hostile-peer.pl: $corpus is empty\n" unless @messages;
	return @messages;
}

# A message in which something is not as it should be.
sub spoiled {
	my @f = @_;
	my $i = int rand @f;
	my $how = int rand 5;
	if ($how == 0 && length $f[$i]) { substr($f[$i], int rand length $f[$i], 1) = chr int rand 256 for 0 .. int rand 4 }
	elsif ($how == 1) { substr($f[$i], int rand(1 + length $f[$i])) = '' }
	elsif ($how == 2) { $f[$i] .= random_bytes(1 + int rand 64) }
	elsif ($how == 3) { splice @f, $i, 1 if @f > 1 }
	else { push @f, random_bytes(int rand 200) for 0 .. int rand 4 }
	return @f;
}

# Messages of nothing, as many as the line carries.
sub empties { again(sub { my $z = shift; while (time < $end) { $z->put("\0\0" x 4096) or return } }) }

# What fuzzers kept, and requests that would be right, with something wrong.
sub malformed {
	my @known = corpus();
	again(sub {
		my $z = shift;
		my $w = Chaos::Zmtp::welcome($z) or return;
		for (my $id = 1; time < $end; $id++) {
			my @good = $id % 2 ? @{$known[int rand @known]} : Chaos::Zmtp::request($w, $id, 1 + int rand 4);
			$z->say(spoiled(@good)) or return;
			vec(my $ready = '', fileno $z->{socket}, 1) = 1;
			sysread $z->{socket}, my $nothing, 65536 if select $ready, undef, undef, 0;
		}
	});
}

# One message whose frames never end.
sub endless {
	my $most = 64 << 20;
	again(sub {
		my $z = shift;
		for (my $sent = 0; $sent < $most && time < $end; $sent += 64 * 1024) {
			$z->put(("\x01\xff" . 'x' x 255) x 255) or return;
		}
	});
}

sub hellos { again(sub { my $z = shift; while (time < $end) { $z->say(Chaos::Zmtp::hello()) or return } }) }
sub pings { again(sub { my $z = shift; while (time < $end) { $z->say(Chaos::Zmtp::head(32, 6, 0, 1) . pack('Q<', 1)) or return } }) }

# A thousand who connect, half of them with a handshake, and say nothing more.
sub idle {
	my @all = map { ($_ % 2 ? dealer() : Chaos::Zmtp->connected($address, $port)) // () } 1 .. 1000;
	sleep 0.1 while time < $end;
}

# Those who begin a handshake and do not go on.
sub half {
	my @all = map { Chaos::Zmtp->connected($address, $port) // () } 1 .. 200;
	$all[$_]->put(substr "\xff" . "\0" x 8 . "\x7f\x03\0NULL" . "\0" x 48, 0, 1 + $_ % 63) for 0 .. $#all;
	sleep 0.1 while time < $end;
}

# Bytes that are no protocol.
sub noise {
	while (time < $end) {
		my $z = Chaos::Zmtp->connected($address, $port) or next;
		for (1 .. 20) { $z->put(random_bytes(512)) or last }
	}
}

# Who comes, greets, asks and leaves, without a pause.
sub comers {
	again(sub {
		my $z = shift;
		my $w = Chaos::Zmtp::welcome($z) or return;
		$z->say(Chaos::Zmtp::request($w, $_, 8)) for 1 .. 8;
	});
}

$does->();
