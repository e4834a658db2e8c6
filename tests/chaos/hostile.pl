#!/usr/bin/perl
# Peers that want no answers but harm: a good client beside them must not notice.  See README.md.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Getopt::Long;
use Time::HiRes qw(time);
use Chaos::Place;
use Chaos::Loop;
use Chaos::Net;
use Chaos::Fleet;
use Chaos::Requests;
use Chaos::Feed;
use Chaos::Usage;

my @over_tcp = qw(deaf large empties malformed endless hellos pings idle half noise comers);
my %o = (seconds => 10, servers => 2, peers => 2, window => 4, seed => int rand 1_000_000, tokens => 40,
         model => "$FindBin::Bin/../../models/kjv-mixtral", kinds => join ',', @over_tcp, 'vandal');
my $usage = <<"END";
usage: hostile.sh [OPTION...]
  --seconds S     how long each kind of peer goes on (10)
  --kinds A,B     of: @over_tcp vandal (all)
  --peers N       peers of a kind for each server (2)
  --servers N     servers; each holds all experts of its device alone (2)
  --seed N        of what peers do (random, and printed)
END
GetOptions(\%o, 'seconds=f', 'kinds=s', 'peers=i', 'servers=i', 'seed=i', 'model=s', 'help') && !@ARGV or print(STDERR $usage), exit 2;
print($usage), exit 0 if $o{help};

my $dir = workplace('hostile', $o{seed});
my $vandal = ($ENV{MOE_TESTS} // "$FindBin::Bin/../../build/release/tests") . '/tools/vandal';
my (@bad, $loop);
END { my $status = $?; $loop->kill_all if $loop; $? = $status }

# The memory of all servers in MiB, and their descriptors.
sub taken {
	my $f = shift;
	my $u = Chaos::Usage->new;
	$u->look($_->{i}, $_->{pid}, 0) for grep { $_->{pid} } @{$f->{server}};
	my @all = map { @{$u->{samples}{$_}} } $u->names;
	my ($rss, $fds) = (0, 0);
	$rss += $_->[1] / 1024, $fds += $_->[2] for @all;
	return ($rss, $fds);
}

# Servers with a good client, as long as each of these kinds of peers goes on.
sub visit {
	my ($net_kind, @kinds) = @_;
	my $home = "$dir/$net_kind";
	mkdir $home;
	mkdir "$home/run", 0700;
	$loop = Chaos::Loop->new;
	my $net = Chaos::Net->new($net_kind, $home, $o{servers});
	my $fleet = Chaos::Fleet->new(loop => $loop, net => $net, dir => $home, disk => $home, replicas => 1, map { $_ => $o{$_} } qw(model servers));
	Chaos::Requests::generate("$home/ask", 50, $o{tokens});
	my $good = Chaos::Feed->new(loop => $loop, fleet => $fleet, dir => $home, name => 'good', requests => "$home/ask", window => $o{window});
	$fleet->start_all;
	$good->start;
	$loop->until(300, sub { $good->{answered} >= 100 }) or die "no answers, with nobody hostile\n";
	my @quiet = map { $_->[1] } @{$good->{latency}};
	printf "%-10s %6d answers                  p50 %6.0f p99 %6.0f ms, servers %4.0f MiB %4d descriptors\n", "alone", scalar @quiet,
		percentile(0.5, @quiet), percentile(0.99, @quiet), taken($fleet);
	attack($_, $fleet, $good) for @kinds;
	$good->finish;
	$loop->until(120, sub { !$good->{pid} });
	push @bad, @{$good->{notes}}, @{$fleet->{fallen} // []};
	push @bad, 'the good client ended with status ' . ($good->{status} // 'none') if $good->{pid} || $good->{status};
	push @bad, $good->lost . " requests of the good client have no answer" if $good->lost;
	my $ends = $fleet->stop_all;
	push @bad, "$ends servers did not end with status 0" if $ends;
}

sub attack {
	my ($kind, $fleet, $good) = @_;
	my $seen = @{$good->{latency}};
	my ($most_rss, $most_fds) = (0, 0);
	my @peers;
	for my $i (0 .. $o{servers} - 1) {
		my $at = $fleet->{net}->endpoint($i);
		my @where = $at =~ m{tcp://(.*):(\d+)};
		my @command = $kind eq 'vandal' ? ($vandal, $fleet->{shards}, int $o{seconds}, $o{seed} + $i, map { $fleet->{net}->endpoint($_) } 0 .. $o{servers} - 1)
			: ($^X, "$FindBin::Bin/hostile-peer.pl", $kind, @where, $o{seconds}, $o{seed} + $i, "$FindBin::Bin/../fuzz/corpus/wire");
		push @peers, map { my $end; $loop->spawn(command => \@command, err => "$dir/peers.err",
			end => sub { push @bad, "$kind: the hostile peer itself failed, status $_[0]" if $_[0] }) } 1 .. $o{peers};
	}
	while (grep { $loop->running($_) } @peers) {
		my ($rss, $fds) = taken($fleet);
		$most_rss = $rss if $rss > $most_rss;
		$most_fds = $fds if $fds > $most_fds;
		$loop->turn(0.2);
	}
	# An answer that began after they left: what they did is over.
	my $n = $good->{n};
	$loop->until(120, sub { !grep { $_ < $n } keys %{$good->{under_way}} }) or push @bad, "$kind: the good client waits for ever";
	my @now = map { $_->[1] } @{$good->{latency}}[$seen .. $#{$good->{latency}}];
	printf "%-10s %6d answers, %d wrong, %d failed, p50 %6.0f p99 %6.0f ms, servers %4.0f MiB %4d descriptors, then %.0f and %d\n", $kind, scalar @now,
		$good->{different}, $good->{refused}, percentile(0.5, @now), percentile(0.99, @now), $most_rss, $most_fds, taken($fleet);
	push @bad, "$kind: $_" for @{$fleet->{fallen} // []};
	$fleet->{fallen} = [];
	die "a server is gone\n" if grep { !$_->{pid} } @{$fleet->{server}};
}

print "hostile.sh --seconds $o{seconds} --peers $o{peers} --servers $o{servers} --seed $o{seed}\n";
my @tcp = grep { $_ ne 'vandal' } split /,/, $o{kinds};
eval { visit('tcp', @tcp) if @tcp; 1 } or push @bad, $@;
$loop->kill_all if $loop;
eval { visit('ipc', 'vandal'); 1 } or push @bad, $@ if ",$o{kinds}," =~ /,vandal,/;
chomp @bad;
print "note: $_\n" for @bad > 20 ? (@bad[0 .. 19], @bad - 20 . ' more') : @bad;
print @bad ? "FAILED\n" : "passed\n";
exit(@bad ? 1 : 0);
