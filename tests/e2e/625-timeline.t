#!/bin/sh
# --timeline: one request's time as trace events, in which spans nest and every server has its part.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-serve.sh"

moe-shard -q --devices 2 "$top/models/kjv-mixtral" "$work/shards" >/dev/null
serve_start "$work/shards"
ok $? "two servers"
i=0
while [ $i -lt 12 ]; do
	echo "{\"id\":\"r$i\",\"prompt\":\"And it came to pass\",\"max_tokens\":$((5 + i)),\"ignore_eos\":true}"
	i=$((i + 1))
done >"$work/requests"

# check FILE ID TOKENS: what a reader of the file needs to be so.
check() {
	perl -MJSON::PP -e '
		my ($file, $id, $tokens) = @ARGV;
		open my $f, "<", $file or die "$file: $!";
		my $all = decode_json(join "", <$f>)->{traceEvents};
		my @x = grep { $_->{ph} eq "X" } @$all;
		my ($request) = grep { $_->{name} eq "request" } @x;
		my $made = grep { $_->{name} =~ /^token / } @x;
		print "id $request->{args}{id}\n" if $request->{args}{id} ne $id;
		print "$made tokens\n" if $made != $tokens || $request->{args}{tokens} != $tokens;
		my %part = map { $_->{name} => $_->{dur} } grep { $_->{pid} == 1 && $_->{tid} == 0 } @x;
		my $sum = $part{queue} + $part{prefill} + $part{decode};
		print "$sum us of parts, $part{request} in all\n" if $sum > $part{request} + 0.01 || $part{prefill} <= 0 || $part{decode} <= 0;
		my %rank;
		for (@x) {
			print "$_->{name} at $_->{ts} for $_->{dur} is outside the request\n" if $_->{ts} < 0 || $_->{dur} < 0 ||
				$_->{ts} + $_->{dur} > $part{request} + 0.01;
			$rank{$_->{args}{rank}}{$_->{args}{outcome}}++ if defined $_->{args} && defined $_->{args}{rank};
		}
		print "ranks @{[sort keys %rank]}\n" if join(" ", sort keys %rank) ne "0 1";
		# One after the other on a thread, or one inside the other.
		my %open;
		for (sort { $a->{pid} <=> $b->{pid} || $a->{tid} <=> $b->{tid} || $a->{ts} <=> $b->{ts} || $b->{dur} <=> $a->{dur} } @x) {
			my $stack = $open{"$_->{pid}/$_->{tid}"} ||= [];
			pop @$stack while @$stack && $stack->[-1] <= $_->{ts} + 0.002;
			print "$_->{name} at $_->{ts} does not nest\n" if @$stack && $_->{ts} + $_->{dur} > $stack->[-1] + 0.002;
			push @$stack, $_->{ts} + $_->{dur};
		}
		# Every step goes through each of the four layers.
		my %layers;
		$layers{$_->{name}}++ for grep { $_->{pid} == 1 && $_->{name} =~ /^layer/ } @x;
		print join(" ", map { "$_: $layers{$_}" } sort keys %layers), "\n" if grep { $_ < $tokens } @layers{map { "layer $_" } 0 .. 3};
		my @inside = grep { $_->{name} eq "computing" } @x;
		print "nothing was computed\n" unless grep { $_->{dur} > 0 } @inside;
	' "$1" "$2" "$3" >"$work/wrong" 2>&1 && [ ! -s "$work/wrong" ]
}

refuses "a timeline without requests" 'first.json: there was no request$' moe-route --hosts "$hosts" --timeline "$work/first.json" "$work/shards"
moe-route --hosts "$hosts" --overlap off --timeline "$work/first.json" "$work/shards" <"$work/requests" >"$work/answers"
ok $? "a timeline of the first request"
check "$work/first.json" '"r0"' 5
s=$?
ok $s "its spans nest, both servers have their part"
[ $s -eq 0 ] || sed 's/^/# /' "$work/wrong" | head -10
moe-route --hosts "$hosts" --batch 4 --overlap on --timeline "$work/later.json" --timeline-request r7 "$work/shards" <"$work/requests" >"$work/again"
ok $? "a timeline of a later one, with halves of a step under way at once"
check "$work/later.json" '"r7"' 12
s=$?
ok $s "its spans nest too"
[ $s -eq 0 ] || sed 's/^/# /' "$work/wrong" | head -10
same "the answers are the same" "$work/answers" "$work/again"
moe-route --hosts "$hosts" --timeline "$work/none.json" --timeline-request x "$work/shards" <"$work/requests" >/dev/null 2>"$work/err"
[ $? -eq 1 ] && grep -q 'none.json: there was no request x' "$work/err" && [ ! -e "$work/none.json" ]
ok $? "a request that never came is told"
serve_stop
ok $? "servers end"
runs 2 "a request without a timeline" moe-route --timeline-request 1 "$work/shards"
finish
