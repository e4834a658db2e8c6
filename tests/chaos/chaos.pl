#!/usr/bin/perl
# Servers are killed, stopped, cut off and restarted while requests are under way: each must get its answer, and the one that it gets
# when nothing happens.  See README.md.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use File::Temp;
use Getopt::Long qw(:config no_ignore_case);
use Time::HiRes qw(time);
use Chaos::Loop;
use Chaos::Net;
use Chaos::Keys;
use Chaos::Fleet;
use Chaos::Requests;
use Chaos::Stream;
use Chaos::Talk;
use Chaos::Faults;

my %o = (minutes => 1, servers => 4, replicas => 2, requests => 200, tokens => 80, settle => 3, patience => 120, batch => 8,
         seed => int rand 1_000_000, model => "$FindBin::Bin/../../models/kjv-mixtral");
my $usage = <<'END';
usage: chaos.sh [OPTION...]
  --seed N            of requests and faults (random, and printed)
  --minutes M         how long faults go on (1; may be a fraction)
  --servers N         servers, one a device (4)
  --replicas N        servers that hold each expert (2)
  --requests N        requests a pass (200), a fifth of them to score
  --tokens N          most tokens an answer (80)
  --faults A,B,...    of: cut disk flip kill link mute rolling stall stop (all that are possible here)
  --net HOW           netns (the default for root), tcp or ipc
  --insecure          no keys: flipped bits are noticed by seals, not by encryption
  --settle S          seconds that clients are connected to a server that is back before it counts (3)
  --allow-last-copy   hurt anybody: error lines count as answers
  --tap               the result as a test's
  --keep              leave the folder with logs
END
GetOptions(\%o, 'seed=i', 'minutes=f', 'servers=i', 'replicas=i', 'requests=i', 'tokens=i', 'faults=s', 'net=s', 'insecure', 'settle=f',
           'patience=f', 'batch=i', 'model=s', 'allow-last-copy', 'tap', 'keep', 'help') && !@ARGV or print(STDERR $usage), exit 2;
print($usage), exit 0 if $o{help};

$ENV{MOE_CHAOS_SEED} = $o{seed};
$SIG{PIPE} = 'IGNORE';
$SIG{$_} = sub { exit 1 } for qw(INT TERM HUP);
$| = 1;

my $dir = File::Temp->newdir('moe-chaos.XXXXXX', TMPDIR => 1, CLEANUP => !$o{keep});
srand $o{seed};
mkdir "$dir/run", 0700;
mkdir "$dir/disk";
$ENV{XDG_RUNTIME_DIR} = "$dir/run";
my $tmpfs = $> == 0 && system("mount -t tmpfs -o size=4m moe-chaos $dir/disk 2>/dev/null") == 0;
my $kind = $o{net} // (Chaos::Net::can_isolate() ? 'netns' : 'tcp');
my @wanted = split /,/, $o{faults} // join ',', Chaos::Faults::kinds();
my $relays = $kind ne 'ipc' && grep { /^(flip|cut|stall)$/ } @wanted;

my $loop = Chaos::Loop->new;
my $net = Chaos::Net->new($kind, "$dir", $o{servers});
my $fleet = Chaos::Fleet->new(loop => $loop, net => $net, dir => "$dir", disk => "$dir/disk", relays => $relays,
                              keys => $o{insecure} || $kind eq 'ipc' ? undef : Chaos::Keys->new("$dir", $o{servers}),
                              map { $_ => $o{$_} } qw(model servers replicas settle));
my $faults = Chaos::Faults->new(loop => $loop, net => $net, fleet => $fleet, disk => "$dir/disk", last_copy => $o{'allow-last-copy'},
                                have => {netns => $kind eq 'netns', relay => $relays, tmpfs => $tmpfs}, kinds => \@wanted);
END {
	my $status = $?;
	$loop->kill_all if $loop;
	system("cp -r $dir/disk $dir/logs") if $dir && $o{keep};
	system("umount $dir/disk") if $tmpfs;
	$? = $status;
}

my $scored = int($o{requests} / 5);
Chaos::Requests::generate("$dir/ask", $o{requests} - $scored, $o{tokens});
Chaos::Requests::scores("$dir/score", $scored);
my %common = (loop => $loop, fleet => $fleet, dir => "$dir", patience => $o{patience}, forgiving => $o{'allow-last-copy'});
my @streams = (
	Chaos::Stream->new(%common, name => 'ask', requests => "$dir/ask", options => ['--unordered', '--batch', $o{batch}]),
	Chaos::Stream->new(%common, name => 'score', requests => "$dir/score", options => ['--score', '--usage', "$dir/disk/usage"],
	                   excuse => 'No space left on device'),
);
my $talk = Chaos::Talk->new(%common, prompt => 'And it came to pass', tokens => 900);
my @clients = (@streams, $talk);
$fleet->{clients} = sub { map { $_->{pid} // () } @clients };

sub say_so { print $o{tap} ? '# ' : '', @_, "\n" }
sub all_done { !grep { $_->{pid} } @clients }

# Everything asked once, and waited for.
sub pass {
	$_->{again} = 0, $_->run for @clients;
	$loop->until(10 * $o{patience}, \&all_done) or die "a client does not end\n";
}

say_so("chaos.sh --seed $o{seed} --minutes $o{minutes} --servers $o{servers} --replicas $o{replicas} --requests $o{requests} --net $kind",
       $fleet->{keys} ? '' : ' --insecure', $o{'allow-last-copy'} ? ' --allow-last-copy' : '');
say_so("faults: @{$faults->{possible}}", @{$faults->{left_out}} ? "; not possible here: @{$faults->{left_out}}" : '');
$fleet->start_all;
my $began = time;
pass();
for (@clients) {
	die "undisturbed, $_->{name} already fails: @{$_->{notes}}\n" if @{$_->{notes}} || !defined $_->{reference};
}
say_so(sprintf 'undisturbed: %.1f s, longest gap between answers %.2f s, between pieces of a text %.3f s', time - $began,
       (sort { $b <=> $a } map { @{$_->{gaps}} } @streams)[0], (sort { $b <=> $a } @{$talk->{gaps}})[0]);

my $end = time + 60 * $o{minutes};
$_->{again} = 1, $_->run for @clients;
$faults->next;
$loop->turn(0.1) while time < $end;
$faults->{over} = 1;
$_->{again} = 0 for @clients;
$loop->until(10 * $o{patience}, sub { all_done() && $faults->calm }) or die "no end after the last fault\n";

# All is well again: so must everything be that is asked now.
$_->{forgiving} = 0 for @clients;
my $refused = $streams[0]{refused} + $streams[1]{refused};
pass();
my $later = $streams[0]{refused} + $streams[1]{refused} - $refused;
my $bad_ends = $fleet->stop_all;

my %sum;
for my $s (@streams) { $sum{$_} += $s->{$_} for qw(sent answered refused turned_away lost different retried hedged) }
my @notes = map { @{$_->{notes}} } @clients;
push @notes, @{$fleet->{fallen} // []};
push @notes, "$bad_ends servers did not end with status 0" if $bad_ends;
$sum{lost} += $sum{refused} - ($o{'allow-last-copy'} ? $refused : 0);
my ($stall) = sort { $b <=> $a } map { $_->{stall} } @streams;
say_so("note: $_") for @notes > 20 ? (@notes[0 .. 19], @notes - 20 . ' more') : @notes;
say_so("requests: sent $sum{sent}, answered $sum{answered}, ", $o{'allow-last-copy'} ? "refused $refused, " : '',
       $sum{turned_away} ? "(and $sum{turned_away} times moe-route found too few servers to begin), " : '', "lost $sum{lost}, different $sum{different}; texts: $talk->{runs}, failed $talk->{failed}, different $talk->{different}");
say_so(sprintf 'sent again %d, hedged %d; longest gap between answers %.2f s, between pieces of a text %.2f s', $sum{retried},
       $sum{hedged}, $stall, $talk->{stall});
say_so('faults: ', join(', ', map { "$_ $faults->{count}{$_}" } sort keys %{$faults->{count}}));

my @checks = (
	["every request has its line, and no error", !$sum{lost} && !$later],
	["every answer is the undisturbed one", !$sum{different} && !$talk->{different}],
	["nothing else went wrong", !@notes],
);
my $failed = grep { !$_->[1] } @checks;
if ($o{tap}) {
	print $_->[1] ? 'ok ' : 'not ok ', ++$o{n}, " - $_->[0]\n" for @checks;
	print '1..', scalar @checks, "\n";
} else {
	say_so($failed ? 'FAILED' : 'passed');
}
exit($failed ? 1 : 0);
