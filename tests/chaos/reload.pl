#!/usr/bin/perl
# Experts move between servers while they answer: no token may change, and the time between tokens is measured.  See README.md.
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
use Chaos::Talk;

my %o = (rounds => 6, seconds => 20, servers => 4, replicas => 2, window => 4, tokens => 60, seed => 1, net => 'tcp', patience => 120,
         model => "$FindBin::Bin/../../models/kjv-mixtral");
my $usage = <<'END';
usage: reload.sh [OPTION...]
  --rounds N      reloads (6); every third is spoiled first, and must be refused
  --seconds S     measured before them, without any (20)
  --servers N     servers (4)
  --replicas N    servers that hold each expert (2)
  --net HOW       tcp or ipc (tcp)
END
GetOptions(\%o, 'rounds=i', 'seconds=f', 'servers=i', 'replicas=i', 'window=i', 'tokens=i', 'seed=i', 'net=s', 'model=s', 'help') && !@ARGV
	or print(STDERR $usage), exit 2;
print($usage), exit 0 if $o{help};

my $dir = workplace('reload', $o{seed});

my $loop = Chaos::Loop->new;
my $net = Chaos::Net->new($o{net}, "$dir", $o{servers});
my $fleet = Chaos::Fleet->new(loop => $loop, net => $net, dir => "$dir", disk => "$dir", map { $_ => $o{$_} } qw(model servers replicas));
END { my $status = $?; $loop->kill_all if $loop; $? = $status }

Chaos::Requests::generate("$dir/ask", 100, $o{tokens});
my $feed = Chaos::Feed->new(loop => $loop, fleet => $fleet, dir => "$dir", name => 'feed', requests => "$dir/ask", window => $o{window});
my $talk = Chaos::Talk->new(loop => $loop, fleet => $fleet, dir => "$dir", prompt => 'And it came to pass', tokens => 900);
my @bad;

sub report {
	my ($name, $from, $answers) = @_;
	my @gaps = @{$talk->{gaps}}[$from .. $#{$talk->{gaps}}];
	printf "%-18s %6d gaps between tokens: p50 %.2f, p99 %.2f, longest %.1f ms; %d answers beside them\n", $name, scalar @gaps,
		percentile(0.5, @gaps), percentile(0.99, @gaps), percentile(1, @gaps), $feed->{answered} - $answers;
	return (scalar @{$talk->{gaps}}, $feed->{answered});
}

sub log_of { my $i = shift; open my $in, '<', "$dir/serve-$i.log" or return ''; local $/; return scalar <$in> }

# SIGHUP to all, until each has said something that matches.
sub told {
	my ($pattern, $what) = @_;
	my @before = map { length log_of($_) } 0 .. $o{servers} - 1;
	kill 'HUP', map { $_->{pid} } @{$fleet->{server}};
	$loop->until($o{patience}, sub { !grep { substr(log_of($_), $before[$_]) !~ $pattern } 0 .. $o{servers} - 1 })
		or push @bad, "$what: not all servers said so";
}

# Bytes all over what only the new epoch has change, or change back: experts that a server has already are not read again.
sub flip {
	for my $path (@_) {
		open my $file, '+<:raw', $path or die "$path: $!\n";
		for (my $at = 16384; $at < -s $path; $at += 16384) {
			seek $file, $at, 0;
			read $file, my $byte, 1;
			seek $file, $at, 0;
			print $file $byte ^ "\x10";
		}
		close $file or die "$path: $!\n";
	}
}

sub reload {
	my $round = shift;
	my %old = map { $_ => 1 } glob "$fleet->{shards}/experts-*";
	$fleet->write_placement("$dir/moved.json", $round);
	$loop->run($o{patience}, 'moe-shard', '-q', '--devices', $o{servers}, '--placement', "$dir/moved.json", $fleet->{shards}, $fleet->{shards}) == 0
		or die "moe-shard failed\n";
	my @new = grep { !$old{$_} } glob "$fleet->{shards}/experts-*";
	if ($round % 3 == 0) {
		flip(@new);
		told(qr/checksum|differs|damaged/, "spoiled epoch @{[$round + 1]} is refused");
		flip(@new);
	}
	told(qr/epoch @{[$round + 1]}, \d+ experts?/, "epoch @{[$round + 1]} is taken over");
	$loop->run($o{patience}, 'moe-shard', '-q', '--gc', $fleet->{shards});
}

$fleet->start_all;
$feed->start;
$talk->run;
$loop->until($o{patience}, sub { !$talk->{pid} && $feed->{answered} >= 100 }) or die "no answers\n";
$talk->{again} = 1;
$talk->run;
print "reload.sh --rounds $o{rounds} --servers $o{servers} --replicas $o{replicas} --net $o{net}\n";
my @at = (scalar @{$talk->{gaps}}, $feed->{answered});
my $end = time + $o{seconds};
$loop->turn(0.1) while time < $end;
@at = report('without reloads', @at);
my $began = time;
reload($_) for 1 .. $o{rounds};
printf "%d reloads in %.1f s\n", $o{rounds}, time - $began;
report('while reloading', @at);
$talk->{again} = 0;
$feed->finish;
$loop->until($o{patience}, sub { !$talk->{pid} && !$feed->{pid} });
push @bad, $feed->lost . ' requests have no answer' if $feed->lost;
my $ends = $fleet->stop_all;
push @bad, "$ends servers did not end with status 0" if $ends;
push @bad, @{$feed->{notes}}, @{$talk->{notes}}, @{$fleet->{fallen} // []};
print "requests: answered $feed->{answered}, refused $feed->{refused}, different $feed->{different}; texts: $talk->{runs}, failed $talk->{failed}, ",
	"different $talk->{different}\n";
print "note: $_\n" for @bad > 20 ? (@bad[0 .. 19], @bad - 20 . ' more') : @bad;
print @bad ? "FAILED\n" : "passed\n";
exit(@bad ? 1 : 0);
