#!/usr/bin/perl
# A fleet at work for a long time: memory, descriptors and threads of all processes, and how long answers take.  See README.md.
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

my %o = (minutes => 30, servers => 4, replicas => 2, streams => 3, window => 8, tokens => 60, requests => 100, every => 5, seed => 1,
         net => 'tcp', model => "$FindBin::Bin/../../models/kjv-mixtral");
my $usage = <<'END';
usage: soak.sh [OPTION...]
  --minutes M     how long (30)
  --servers N     servers (4)
  --replicas N    servers that hold each expert (2)
  --streams N     moe-routes that are fed without a pause (3)
  --window N      requests that each of them has at a time (8)
  --every S       seconds between samples (5)
  --net HOW       tcp, ipc or netns (tcp)
  --seed N        of the requests (1)
END
GetOptions(\%o, 'minutes=f', 'servers=i', 'replicas=i', 'streams=i', 'window=i', 'tokens=i', 'requests=i', 'every=f', 'seed=i',
           'net=s', 'model=s', 'help') && !@ARGV or print(STDERR $usage), exit 2;
print($usage), exit 0 if $o{help};

my $dir = workplace('soak', $o{seed});

my $loop = Chaos::Loop->new;
my $net = Chaos::Net->new($o{net}, "$dir", $o{servers});
my $fleet = Chaos::Fleet->new(loop => $loop, net => $net, dir => "$dir", disk => "$dir", map { $_ => $o{$_} } qw(model servers replicas));
END { my $status = $?; $loop->kill_all if $loop; $? = $status }

Chaos::Requests::generate("$dir/ask", $o{requests}, $o{tokens});
my %reference;
my @feeds = map { Chaos::Feed->new(loop => $loop, fleet => $fleet, dir => "$dir", name => "route-$_", requests => "$dir/ask",
                                   window => $o{window}, reference => \%reference) } 0 .. $o{streams} - 1;
my $seen = Chaos::Usage->new;

sub percentiles { my @v = @_; sprintf '%6.0f %6.0f %6.0f', map { percentile($_, @v) } 0.5, 0.9, 0.99 }
sub between { my ($from, $to) = @_; map { $_->[1] } grep { $_->[0] >= $from && $_->[0] < $to } map { @{$_->{latency}} } @feeds }

$fleet->start_all;
$_->start for @feeds;
my $began = time;
my $end = $began + 60 * $o{minutes};
print "soak.sh --minutes $o{minutes} --servers $o{servers} --replicas $o{replicas} --streams $o{streams} --window $o{window} --net $o{net}\n";

my $sample;
$sample = sub {
	my $now = time - $began;
	$seen->look("serve-$_->{i}", $_->{pid}, $now) for grep { $_->{pid} } @{$fleet->{server}};
	$seen->look($_->{name}, $_->{pid}, $now) for grep { $_->{pid} } @feeds;
	$loop->after($o{every}, $sample) if time < $end;
};
$sample->();

my $minute = 0;
print "minute  answers  p50 ms p90 ms p99 ms\n";
while (time < $end) {
	$loop->turn(0.2);
	next unless time - $began >= 60 * ($minute + 1);
	my @now = between($began + 60 * $minute, $began + 60 * ($minute + 1));
	printf "%6d  %7d  %s\n", ++$minute, scalar @now, percentiles(@now);
}
$_->finish for @feeds;
$loop->until(120, sub { !grep { $_->{pid} } @feeds });
my $bad_ends = $fleet->stop_all;

# ---- what it was ----

my (@bad, $warm);
$warm = 60 * $o{minutes} / 5;
print "after the first fifth:\nprocess    memory KiB  growth KiB/min  in the second half  descriptors  threads\n";
for my $name ($seen->names) {
	my $r = $seen->summary($name, $warm) or next;
	printf "%-10s %10d  %8.1f +-%4.1f  %12.1f +-%4.1f  %4d -> %3d  %2d -> %2d\n", $name, $r->{rss}, $r->{slope}, 2 * $r->{error}, $r->{half},
		2 * $r->{half_error}, map { $r->{$_} } qw(fds_first fds_last threads_first threads_last);
	push @bad, "$name has more descriptors than in the beginning" if $r->{fds_last} > $r->{fds_first};
	push @bad, "$name has more threads than in the beginning" if $r->{threads_last} > $r->{threads_first};
	push @bad, "the memory of $name would double within a day" if Chaos::Usage::doubles($r);
}
my $third = ($end - $began - $warm) / 3;
printf "p50, p90, p99 ms: first third %s, last third %s\n", percentiles(between($began + $warm, $began + $warm + $third)),
	percentiles(between($end - $third, $end));
my %sum;
for my $s (@feeds) {
	$sum{$_} += $s->{$_} for qw(answered refused different);
	$sum{lost} += $s->lost;
	push @bad, @{$s->{notes}};
	push @bad, "$s->{name} ended with status $s->{status}" if $s->{status};
}
push @bad, @{$fleet->{fallen} // []};
push @bad, "$sum{lost} requests have no answer" if $sum{lost};
push @bad, "$bad_ends servers did not end with status 0" if $bad_ends;
print "requests: answered $sum{answered}, refused $sum{refused}, lost $sum{lost}, different $sum{different}\n";
print "note: $_\n" for @bad > 20 ? (@bad[0 .. 19], @bad - 20 . ' more') : @bad;
print @bad ? "FAILED\n" : "passed\n";
exit(@bad ? 1 : 0);
