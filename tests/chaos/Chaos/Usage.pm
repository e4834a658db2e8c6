# What processes take of the system, over time.
package Chaos::Usage;
use strict;
use warnings;

sub new { bless {samples => {}}, shift }

sub _field { my ($text, $name) = @_; $text =~ /^$name:\s+(\d+)/m ? $1 : 0 }

# A sample of a process under a name: seconds, KiB resident, descriptors, threads.
sub look {
	my ($u, $name, $pid, $when) = @_;
	open my $in, '<', "/proc/$pid/status" or return;
	my $text = do { local $/; <$in> };
	return unless $text =~ /^VmRSS/m; # it has ended
	opendir my $fds, "/proc/$pid/fd" or return;
	my $n = grep { /^\d/ } readdir $fds;
	push @{$u->{samples}{$name}}, [$when, _field($text, 'VmRSS'), $n, _field($text, 'Threads')];
}

sub names { sort keys %{$_[0]{samples}} }

# Least squares over [x, y] pairs: (slope, its standard error).
sub _slope {
	my @p = @_;
	my $n = @p;
	return (0, 0) if $n < 3;
	my ($mx, $my, $xx, $xy, $rest) = (0, 0, 0, 0, 0);
	$mx += $_->[0] / $n, $my += $_->[1] / $n for @p;
	$xx += ($_->[0] - $mx) ** 2, $xy += ($_->[0] - $mx) * ($_->[1] - $my) for @p;
	return (0, 0) unless $xx > 0;
	my $b = $xy / $xx;
	$rest += ($_->[1] - $my - $b * ($_->[0] - $mx)) ** 2 for @p;
	return ($b, sqrt($rest / ($n - 2) / $xx));
}

# Of the samples from $begin on: growth of memory in KiB a minute with its error, in all of the time and in its second half (what is
# taken once is no growth); memory at the end; and the most descriptors and threads in the first and the last third.
sub summary {
	my ($u, $name, $begin) = @_;
	my @s = grep { $_->[0] >= $begin } @{$u->{samples}{$name}};
	return unless @s >= 6;
	my $third = int(@s / 3);
	my ($whole, $error) = _slope(map { [$_->[0] / 60, $_->[1]] } @s);
	my ($half, $half_error) = _slope(map { [$_->[0] / 60, $_->[1]] } @s[@s / 2 .. $#s]);
	my %r = (slope => $whole, error => $error, half => $half, half_error => $half_error, rss => $s[-1][1]);
	for my $i ([fds => 2], [threads => 3]) {
		$r{"$i->[0]_first"} = (sort { $b <=> $a } map { $_->[$i->[1]] } @s[0 .. $third - 1])[0];
		$r{"$i->[0]_last"} = (sort { $b <=> $a } map { $_->[$i->[1]] } @s[-$third .. -1])[0];
	}
	return \%r;
}

# Would its memory double within a day, going by what is certain of its growth?
sub doubles {
	my $r = shift;
	my ($a, $b) = ($r->{slope} - 2 * $r->{error}, $r->{half} - 2 * $r->{half_error});
	return 1440 * ($a < $b ? $a : $b) > $r->{rss};
}

1;
