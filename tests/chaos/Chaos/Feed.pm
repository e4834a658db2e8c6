# A moe-route that does not end: it is fed requests, so many at once, and each answer is compared and timed.
package Chaos::Feed;
use strict;
use warnings;
use Errno qw(EAGAIN);
use Fcntl;
use POSIX ();
use Time::HiRes qw(time);

# %o: name, loop, fleet, requests (a file of lines with "id", asked in turn for ever), window (asked at once), options, dir, reference
# (answers by place in the file, as another Feed learned them).
sub new {
	my ($class, %o) = @_;
	my $s = bless {%o, reference => $o{reference} // {}, n => 0, under_way => {}, pending => '', latency => [], answered => 0,
	               refused => 0, different => 0, notes => []}, $class;
	open my $in, '<', $s->{requests} or die "$s->{requests}: $!\n";
	chomp(@{$s->{lines}} = <$in>);
	return $s;
}

sub start {
	my $s = shift;
	my ($path, $rest) = ("$s->{dir}/feed-$s->{name}", '');
	POSIX::mkfifo($path, 0600) or die "$path: $!\n";
	# Open both ways, so that there is a reader until moe-route has opened it; closed with the writing end.
	sysopen $s->{both}, $path, O_RDWR or die "$path: $!\n";
	$s->{pid} = $s->{loop}->spawn(
		command => [$s->{fleet}->route('--unordered', '--batch', $s->{window}, @{$s->{options} // []})], in => $path,
		err => "$s->{dir}/feed-$s->{name}.err",
		read => sub {
			$rest .= $_[0] // '';
			$s->_line($1) while $rest =~ s/^(.*)\n//;
			$s->_ask;
		},
		end => sub { $s->{pid} = undef; $s->{status} = shift });
	sysopen $s->{to}, $path, O_WRONLY or die "$path: $!\n";
	fcntl($s->{to}, F_SETFL, fcntl($s->{to}, F_GETFL, 0) | O_NONBLOCK);
	$s->_ask;
}

# Keep the window full.
sub _ask {
	my $s = shift;
	return unless $s->{to};
	while (keys %{$s->{under_way}} < $s->{window} && !$s->{over}) {
		my $line = $s->{lines}[$s->{n} % @{$s->{lines}}];
		$line =~ s/"id":\d+/"id":$s->{n}/;
		$s->{pending} .= "$line\n";
		$s->{under_way}{$s->{n}++} = time;
	}
	my $wrote = syswrite($s->{to}, $s->{pending});
	substr($s->{pending}, 0, $wrote // 0, '');
	delete @$s{qw(to both)} if $s->{over} && $s->{pending} eq '';
}

sub _line {
	my ($s, $line) = @_;
	return push @{$s->{notes}}, "$s->{name}: $line" unless $line =~ s/^\{"id":(\d+),// && $s->{under_way}{$1};
	my ($id, $place) = ($1, $1 % @{$s->{lines}});
	push @{$s->{latency}}, [time, time - delete $s->{under_way}{$id}];
	if ($line =~ /"error":/) {
		$s->{refused}++;
		push @{$s->{notes}}, "$s->{name}: $id: $line";
	} elsif (($s->{reference}{$place} //= $line) ne $line) {
		$s->{different}++;
		push @{$s->{notes}}, "$s->{name}: $id is another answer";
	} else {
		$s->{answered}++;
	}
}

# No more requests: it ends when all are answered.
sub finish { my $s = shift; $s->{over} = 1; $s->_ask }
sub lost { my $s = shift; scalar keys %{$s->{under_way}} }

1;
