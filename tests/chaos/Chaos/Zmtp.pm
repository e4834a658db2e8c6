# ZeroMQ's protocol (ZMTP 3.0, without keys) by hand, to say what no library would.
package Chaos::Zmtp;
use strict;
use warnings;
use IO::Socket::INET;

sub connected {
	my ($class, $address, $port) = @_;
	my $s = IO::Socket::INET->new(PeerAddr => $address, PeerPort => $port, Timeout => 5) or return;
	return bless {socket => $s, in => ''}, $class;
}

# Connected, greeted and ready to talk, as a DEALER.
sub dealer {
	my $z = shift->connected(@_) or return;
	my $ready = "\x05READY\x0bSocket-Type" . pack('N/a*', 'DEALER') . "\x08Identity" . pack('N', 0);
	$z->put("\xff" . "\0" x 8 . "\x7f\x03\0NULL" . "\0" x 16 . "\0" . "\0" x 31);
	$z->put("\x04" . chr(length $ready) . $ready);
	defined $z->_take(64) or return;
	my ($flags) = $z->frame;
	return defined $flags && $flags & 4 ? $z : undef;
}

# False: the server has had enough.
sub put {
	my ($z, $bytes) = @_;
	while (length $bytes) {
		my $n = syswrite($z->{socket}, $bytes) or return 0;
		substr($bytes, 0, $n, '');
	}
	return 1;
}

sub _take {
	my ($z, $n) = @_;
	while (length $z->{in} < $n) {
		sysread($z->{socket}, $z->{in}, 65536, length $z->{in}) or return;
	}
	return substr($z->{in}, 0, $n, '');
}

# The next frame: (flags, bytes); nothing at the end.
sub frame {
	my $z = shift;
	my $flags = $z->_take(1);
	return unless defined $flags;
	$flags = ord $flags;
	my $size = $z->_take($flags & 2 ? 8 : 1) // return;
	my $bytes = $z->_take($flags & 2 ? unpack('Q>', $size) : ord $size);
	return defined $bytes ? ($flags, $bytes) : ();
}

# The next message's frames, commands passed over.
sub message {
	my $z = shift;
	my @frames;
	while (my ($flags, $bytes) = $z->frame) {
		next if $flags & 4;
		push @frames, $bytes;
		return @frames unless $flags & 1;
	}
	return;
}

sub encoded {
	my @frames = @_;
	my $last = pop @frames;
	return join '', (map { "\x03" . pack('Q>', length) . $_ } @frames), "\x02" . pack('Q>', length $last) . $last;
}
sub say { my ($z, @frames) = @_; $z->put(encoded(@frames)) }

# ---- messages of moe-wire(7) ----

sub head { my ($bytes, $kind, $flags, $id) = @_; 'MOEW' . pack('VvvVQ<', $bytes, 1, $kind, $flags, $id) }

sub hello { head(128, 1, 0, 0) . pack('vvVVVQ<Q<', 1, 1, 0, 0, 1, 0, 0) . '0' x 32 . "\0" x 40 }

# What a server says of itself: {hidden, rows, epoch, instance, held => [[layer, expert]...]}.
sub welcome {
	my ($z) = @_;
	$z->say(hello()) or return;
	my ($w, $held) = $z->message or return;
	return unless length $w >= 128 && unpack('v', substr $w, 10) == 2;
	my @pairs = unpack('V*', $held);
	return {hidden => unpack('V', substr $w, 28), rows => unpack('V', substr $w, 36), epoch => unpack('Q<', substr $w, 40),
	        instance => unpack('Q<', substr $w, 96), held => [map { [@pairs[2 * $_, 2 * $_ + 1]] } 0 .. @pairs / 2 - 1]};
}

# The frames of a request for $rows rows of one expert that the server holds.
sub request {
	my ($w, $id, $rows) = @_;
	my ($layer, $expert) = @{$w->{held}[$id % @{$w->{held}}]};
	return (head(80, 3, 0, $id) . pack('Q<Q<Q<Q<VVVVVV', $w->{epoch}, $w->{instance}, 0, ~0, $layer, $rows, $w->{hidden}, $rows, 0, 0),
	        pack('V*', ($expert) x $rows), pack('V*', 0 .. $rows - 1), pack('f<*', (0.5) x $rows), pack('f<*', (0.25) x ($rows * $w->{hidden})));
}

1;
