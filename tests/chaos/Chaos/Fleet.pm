# A shard set whose experts are on several servers each, and the servers: starting, ending, and who may be hurt without a loss.
package Chaos::Fleet;
use strict;
use warnings;
use POSIX ();
use Time::HiRes qw(time);

# %o: loop, net, dir (fresh folder), disk (where logs and ready files go), model, servers, replicas, keys (a Chaos::Keys or undef),
# settle (seconds that clients must be connected before a server that was hurt counts again), clients (their processes), relays (1: clients come through relays).
sub new {
	my ($class, %o) = @_;
	my $f = bless {%o, disk_full_until => 0, shards => "$o{dir}/shards", server => []}, $class;
	$f->{server}[$_] = {i => $_, hurt => 0, ready => 0} for 0 .. $o{servers} - 1;
	$f->_make_shards;
	return $f;
}

# The devices of an expert: as many as there are replicas, one after the other.
sub holders { my ($f, $expert) = @_; map { ($expert + $_) % $f->{servers} } 0 .. $f->{replicas} - 1 }

# A placement file in which expert 0 begins at device $first.
sub write_placement {
	my ($f, $path, $first) = @_;
	my $row = join ',', map { '[' . join(',', $f->holders($_ + $first)) . ']' } 0 .. $f->{experts} - 1;
	open my $to, '>', $path or die "$path: $!\n";
	print $to '{"placement":[', join(',', ("[$row]") x $f->{layers}), "]}\n";
	close $to or die "$path: $!\n";
}

sub _make_shards {
	my $f = shift;
	my $info = `moe-shard --info '$f->{model}'`;
	my ($layers, $experts) = ($info =~ /"layers":\s*(\d+)/, $info =~ /"experts":\s*(\d+)/);
	die "moe-shard --info $f->{model} names no layers and experts\n" unless $layers && $experts;
	@$f{qw(layers experts)} = ($layers, $experts);
	$f->write_placement("$f->{dir}/placement.json", 0);
	my $said = `moe-shard -q --devices $f->{servers} --placement '$f->{dir}/placement.json' '$f->{model}' '$f->{shards}'`;
	die "moe-shard failed\n" if $?;
}

# Would every expert have a server left that all clients are connected to, were these hurt too?
sub may_hurt {
	my ($f, @more) = @_;
	my %out = map { $_ => 1 } @more, map { $_->{i} } grep { $_->{hurt} } @{$f->{server}};
	my %well = map { $_ => 1 } grep { !$out{$_} && $f->_is_back($_) } 0 .. $f->{servers} - 1;
	for my $expert (0 .. $f->{experts} - 1) {
		return 0 unless grep { $well{$_} } $f->holders($expert);
	}
	return 1;
}

# May it be hurt: is it there, and well?
sub is_well { my ($f, $i) = @_; my $s = $f->{server}[$i]; $s->{pid} && $s->{ready} && !$s->{hurt} }
sub hurt { my ($f, $i) = @_; $f->{server}[$i]{hurt}++ }

# Established connections as a process's network namespace has them: [local, remote].
sub _established {
	my $pid = shift;
	open my $in, '<', "/proc/$pid/net/tcp" or return;
	return map { my @field = split; $field[3] eq '01' ? [@field[1, 2]] : () } <$in>;
}

# How many to this tcp endpoint are there at both ends: of one whose other end went away without a word, or is still to be answered, one
# end may look alive.
sub _connections {
	my ($server, $client, $endpoint) = @_;
	my ($address, $port) = $endpoint =~ m{^tcp://([\d.]+):(\d+)$} or return 0;
	my $at = sprintf '%02X%02X%02X%02X:%04X', reverse(split /\./, $address), $port;
	my %there = map { $_->[0] eq $at ? ($_->[1] => 1) : () } _established($server);
	return scalar grep { $_->[1] eq $at && $there{$_->[0]} } _established($client);
}

# Is it there, with a connection of every client that runs now, through the relay if there is one?
sub _is_back {
	my ($f, $i) = @_;
	my $s = $f->{server}[$i];
	my @clients = $f->{clients} ? $f->{clients}->() : ();
	return 0 unless $s->{ready};
	return 1 unless @clients && $f->{net}->endpoint($i) =~ /^tcp:/;
	return 0 if $f->{relays} && _connections($clients[0], $clients[0], $f->_seen_at($i)) < @clients;
	return _connections($s->{pid}, $clients[0], $f->{net}->endpoint($i)) >= @clients;
}

# Whatever hurt it is over: once clients have been connected to it for a while, it counts again.
sub heal {
	my ($f, $i, $then) = @_;
	my ($since, $look);
	$look = sub {
		$since = $f->_is_back($i) ? $since // time : undef;
		return $f->{loop}->after(0.1, $look) unless defined $since && time - $since >= $f->{settle};
		undef $look;
		$f->{server}[$i]{hurt}--;
		$then->() if $then;
	};
	$look->();
}

sub start {
	my ($f, $i) = @_;
	my $s = $f->{server}[$i];
	my @how = $f->{keys} ? $f->{keys}->server($i) : ('--insecure');
	my $out = '';
	$s->{ready} = 0;
	$s->{pid} = $f->{loop}->spawn(
		command => [$f->{net}->beside($i, 'moe-serve', '--rank', $i, '--bind', $f->{net}->endpoint($i), '-t', 1,
		                              '--ready-file', "$f->{disk}/ready-$i", @how, @{$f->{options} // []}, $f->{shards})],
		err => "$f->{disk}/serve-$i.log",
		read => sub { $out .= $_[0] // ''; $s->{ready} = time if !$s->{ready} && $out =~ /"event":"ready"/ },
		end => sub { my $was = $s->{ready}; @$s{qw(status ready)} = (shift, 0); $f->_ended($i, $was) });
}

# One that ends by itself, with nobody having asked for it, is a finding, unless it could not write its ready file because the disk was
# full.  In either case it is started again, as a service manager would.
sub _ended {
	my ($f, $i, $was_ready) = @_;
	my $s = $f->{server}[$i];
	$s->{pid} = 0;
	if (!$s->{asked}) {
		push @{$f->{fallen}}, "server $i ended by itself, status $s->{status}" unless !$was_ready && time < $f->{disk_full_until};
		$f->{loop}->after(1, sub { $f->start($i) unless $s->{pid} });
	}
	$s->{asked} = 0;
}

# Send a signal that ends it, and call $then when it has.
sub finish {
	my ($f, $i, $signal, $then) = @_;
	my $s = $f->{server}[$i];
	my $look;
	$s->{asked} = 1;
	kill $signal, $s->{pid} if $s->{pid};
	$look = sub { $s->{pid} ? $f->{loop}->after(0.02, $look) : do { undef $look; $then->() } };
	$look->();
}

sub start_all {
	my $f = shift;
	$f->start($_) for 0 .. $f->{servers} - 1;
	$f->_start_relays if $f->{relays};
	$f->{loop}->until(120, sub { !grep { !$_->{ready} } @{$f->{server}} }) or die "the servers do not get ready\n";
	$f->_write_hosts;
}

sub _start_relays {
	my $f = shift;
	(my $here = __FILE__) =~ s{Chaos/Fleet\.pm$}{};
	for my $i (0 .. $f->{servers} - 1) {
		my ($to, $port) = $f->{net}->endpoint($i) =~ m{tcp://(.*):(\d+)} or die "a relay needs tcp\n";
		POSIX::mkfifo("$f->{dir}/relay-$i", 0600) or die "$f->{dir}/relay-$i: $!\n";
		open my $control, '+<', "$f->{dir}/relay-$i" or die "$f->{dir}/relay-$i: $!\n";
		$f->{server}[$i]{relay} = $control;
		$f->{loop}->spawn(command => [$f->{net}->outside('perl', "${here}relay.pl", $f->{net}->relay($i), $to, $port)],
		                  in => "$f->{dir}/relay-$i", err => "$f->{dir}/relay.log");
	}
}

sub tell_relay { my ($f, $i, $words) = @_; syswrite($f->{server}[$i]{relay}, "$words\n") }

# Where clients connect to.
sub _seen_at { my ($f, $i) = @_; $f->{relays} ? sprintf('tcp://%s:%d', $f->{net}->relay($i)) : $f->{net}->endpoint($i) }

sub _write_hosts {
	my $f = shift;
	open my $to, '>', "$f->{dir}/hosts" or die "$f->{dir}/hosts: $!\n";
	for my $i (0 .. $f->{servers} - 1) {
		print $to $f->_seen_at($i), $f->{keys} ? $f->{keys}->host($i) : '', "\n";
	}
	close $to or die "$f->{dir}/hosts: $!\n";
}

# moe-route as clients run it.
sub route {
	my ($f, @options) = @_;
	my @keys = $f->{keys} ? $f->{keys}->client : ();
	return $f->{net}->outside('moe-route', '-v', '-t', 1, '--hosts', "$f->{dir}/hosts", @keys, @{$f->{route_options} // []}, @options, $f->{shards});
}

# All are told to stop; how many did not end as they should.
sub stop_all {
	my $f = shift;
	my $bad = 0;
	for my $s (grep { $_->{pid} } @{$f->{server}}) {
		$s->{asked} = 1;
		kill 'CONT', $s->{pid};
		kill 'TERM', $s->{pid};
	}
	$f->{loop}->until(30, sub { !grep { $_->{pid} } @{$f->{server}} });
	$bad += $_->{pid} || $_->{status} ? 1 : 0 for @{$f->{server}};
	return $bad;
}

1;
