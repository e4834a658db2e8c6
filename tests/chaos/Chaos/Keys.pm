# A pair of keys for each server, one for the clients, and who may connect.
package Chaos::Keys;
use strict;
use warnings;

sub _pair {
	my $path = shift;
	my $public = `moe-serve keygen '$path'`;
	die "moe-serve keygen failed\n" if $?;
	return $public =~ /^(\S+)/ ? $1 : die "moe-serve keygen said nothing\n";
}

sub new {
	my ($class, $dir, $servers) = @_;
	my $k = bless {dir => $dir}, $class;
	$k->{public} = [map { _pair("$dir/server-$_.key") } 0 .. $servers - 1];
	_pair("$dir/client.key");
	return $k;
}

# What a server and a client are started with, and what a line of the hosts file ends with.
sub server { my ($k, $i) = @_; ('--server-key', "$k->{dir}/server-$i.key", '--authorized-keys', "$k->{dir}/client.key.pub") }
sub client { my $k = shift; ('--client-key', "$k->{dir}/client.key") }
sub host { my ($k, $i) = @_; " key=$k->{public}[$i]" }

1;
