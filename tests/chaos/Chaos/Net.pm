# Where servers and clients live: each server in a network namespace of its own, with an address of its own, on a bridge in one more
# namespace, in which clients run; or all on this host's loopback; or on sockets in a folder.  The host's own network is not touched.
package Chaos::Net;
use strict;
use warnings;
use IO::Socket::INET;

sub _quiet { system("@_ >/dev/null 2>&1") == 0 }

# Can this user make namespaces that are connected?
sub can_isolate {
	my $probe = "moe-probe-$$";
	return 0 unless $> == 0 && _quiet("ip netns add $probe");
	my $can = _quiet("ip -n $probe link add name b0 type bridge") && _quiet("ip -n $probe link add name v0 type veth peer name v1");
	_quiet("ip netns del $probe");
	return $can;
}

# kind: netns, tcp or ipc.
sub new {
	my ($class, $kind, $dir, $n) = @_;
	my $net = bless {kind => $kind, dir => $dir, n => $n, hub => "moe-$$-hub", made => [], owner => $$}, $class;
	$net->_isolate if $kind eq 'netns';
	$net->{port} = [map { _free_port() } 1 .. 2 * $n] if $kind eq 'tcp';
	return $net;
}

sub _ip { my $words = "ip @_"; system("$words >/dev/null") == 0 or die "failed: $words\n" }

sub _isolate {
	my $net = shift;
	my $hub = $net->{hub};
	push @{$net->{made}}, $hub;
	_ip("netns add $hub");
	_ip("-n $hub link add name bridge type bridge");
	_ip("-n $hub link set bridge up");
	_ip("-n $hub link set lo up");
	_ip("-n $hub addr add 10.77.0.1/24 dev bridge");
	for my $i (0 .. $net->{n} - 1) {
		my $ns = $net->space($i);
		push @{$net->{made}}, $ns;
		_ip("netns add $ns");
		_ip("-n $hub link add name s$i type veth peer name eth0 netns $ns");
		_ip("-n $hub link set s$i master bridge");
		_ip("-n $hub link set s$i up");
		_ip("-n $ns addr add ", $net->address($i) . '/24', 'dev eth0');
		_ip("-n $ns link set eth0 up");
		_ip("-n $ns link set lo up");
	}
}

sub _free_port {
	my $s = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or die "no free port: $!\n";
	return $s->sockport;
}

sub space { "moe-$_[0]{owner}-s$_[1]" }
sub address { '10.77.0.' . (10 + $_[1]) }

# Where server $i listens.
sub endpoint {
	my ($net, $i) = @_;
	return 'tcp://' . $net->address($i) . ':5555' if $net->{kind} eq 'netns';
	return "tcp://127.0.0.1:$net->{port}[$i]" if $net->{kind} eq 'tcp';
	return "ipc://$net->{dir}/run/server-$i";
}

# Where a relay in front of it listens: (address, port).
sub relay {
	my ($net, $i) = @_;
	return ('10.77.0.1', 6000 + $i) if $net->{kind} eq 'netns';
	return ('127.0.0.1', $net->{port}[$net->{n} + $i]);
}

# A command as it runs beside server $i, or among the clients.
sub beside { my ($net, $i, @command) = @_; $net->{kind} eq 'netns' ? ('ip', 'netns', 'exec', $net->space($i), @command) : @command }
sub outside { my ($net, @command) = @_; $net->{kind} eq 'netns' ? ('ip', 'netns', 'exec', $net->{hub}, @command) : @command }

# The cable of server $i: 0 unplugged, 1 plugged in.
sub link_up { my ($net, $i, $up) = @_; _ip("-n $net->{hub} link set s$i", $up ? 'up' : 'down') }

# What server $i sends to clients vanishes, and nothing tells it so; what they send arrives.
sub mute { my ($net, $i, $on) = @_; _ip('-n', $net->space($i), 'route', $on ? 'add' : 'del', 'blackhole 10.77.0.1/32') }

sub DESTROY {
	my $net = shift;
	return unless $$ == $net->{owner};
	_quiet("ip netns del $_") for @{$net->{made}};
}

1;
