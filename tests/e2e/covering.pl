# Few runs that together try all pairs, triples, ... of settings.
#
#	perl covering.pl STRENGTH NAME=VALUE,VALUE,... ... >ROWS
#
# Each row is a value of every axis, in the order given, with spaces between.  For any STRENGTH axes, every combination of their
# values is in at least one row.  The rows are the same each time.  Standard error says how many combinations and rows there are.
#
# Greedy: a row starts with a combination that no row has yet; its other values are the best of some random fillings.
use strict;
use warnings;

my ($strength, @args) = @ARGV;
my @axes = map { [split /,/, s/^[^=]*=//r] } @args;
my $tries = 30;
srand 1;

# All ways to choose $k of the numbers from $from to the last axis.
sub choices {
	my ($from, $k) = @_;
	return [] if $k == 0;
	return map { my $i = $_; map { [$i, @$_] } choices($i + 1, $k - 1) } $from .. $#axes;
}

# All combinations of values of these axes, as "axis:value axis:value ...".
sub combinations {
	my @found = ('');
	for my $axis (@_) {
		@found = map { my $head = $_; map { "$head$axis:$_ " } 0 .. $#{ $axes[$axis] } } @found;
	}
	return @found;
}

my @choices = choices(0, $strength);
my @all = map { combinations(@$_) } @choices;
my %open = map { $_ => 1 } @all;

# The combinations that a row has and no row before had.
sub gains {
	my @row = @_;
	return grep { $open{$_} } map { join '', map { "$_:$row[$_] " } @$_ } @choices;
}

my $rows = 0;
for my $seed (@all) {
	next unless $open{$seed};
	my (@best, @gain);
	for (1 .. $tries) {
		my @row = map { int rand @$_ } @axes;
		$row[$1] = $2 while $seed =~ /(\d+):(\d+)/g;
		my @now = gains(@row);
		@best = @row, @gain = @now if @now > @gain;
	}
	delete @open{@gain};
	print join(' ', map { $axes[$_][$best[$_]] } 0 .. $#axes), "\n";
	$rows++;
}
printf STDERR "%d combinations of any %d of %d settings, in %d rows\n", scalar @all, $strength, scalar @axes, $rows;
