# Where a script works: a folder of its own that goes with it, and an end by signal that cleans up; and what all of them reckon.
package Chaos::Place;
use strict;
use warnings;
use Exporter 'import';
use File::Temp;
our @EXPORT = qw(workplace percentile);

# The folder, for as long as what is returned is kept.
sub workplace {
	my ($name, $seed) = @_;
	my $dir = File::Temp->newdir("moe-$name.XXXXXX", TMPDIR => 1);
	mkdir "$dir/run", 0700;
	$ENV{XDG_RUNTIME_DIR} = "$dir/run";
	$SIG{PIPE} = 'IGNORE';
	$SIG{$_} = sub { exit 1 } for qw(INT TERM HUP);
	$| = 1;
	srand $seed;
	return $dir;
}

# Of seconds, in milliseconds.
sub percentile { my ($p, @v) = @_; @v = sort { $a <=> $b } @v; @v ? 1000 * $v[int($p * $#v)] : 0 }

1;
