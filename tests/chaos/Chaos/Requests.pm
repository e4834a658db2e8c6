# What is asked: requests of many lengths, greedy and sampled, and texts to score; the same for the same seed.
package Chaos::Requests;
use strict;
use warnings;

my @words = qw(and God said let there be light upon the face of deep when king heard it he rent his clothes behold they went out from
	city unto house which was beyond river Jordan in days thereof);

sub _text { my $n = shift; join ' ', map { $words[int rand @words] } 1 .. $n }

# $n requests to $path: lengths of 1 to 60 words, answers of 1 to $most tokens, every third sampled.
sub generate {
	my ($path, $n, $most) = @_;
	open my $to, '>', $path or die "$path: $!\n";
	for my $id (0 .. $n - 1) {
		printf $to qq({"id":%d,"prompt":"%s","max_tokens":%d,"temperature":%s,"seed":%d,"ignore_eos":true,"logprobs":true}\n),
			$id, _text(1 + int rand 60), 1 + int rand $most, $id % 3 ? 0 : 0.9, $id;
	}
	close $to or die "$path: $!\n";
}

sub scores {
	my ($path, $n) = @_;
	open my $to, '>', $path or die "$path: $!\n";
	printf $to qq({"id":%d,"prompt":"%s"}\n), $_, _text(2 + int rand 80) for 0 .. $n - 1;
	close $to or die "$path: $!\n";
}

1;
