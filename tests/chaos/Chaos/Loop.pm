# One thread for everything: what can be read, what has its time, which processes have ended.
package Chaos::Loop;
use strict;
use warnings;
use Errno qw(EAGAIN EINTR);
use Fcntl;
use IO::Select;
use POSIX qw(WNOHANG);
use Time::HiRes qw(time);

sub new { bless {timers => [], readers => {}, select => IO::Select->new, ends => {}}, shift }

# Call $what in $seconds.
sub after {
	my ($l, $seconds, $what) = @_;
	$l->{timers} = [sort { $a->[0] <=> $b->[0] } @{$l->{timers}}, [time + $seconds, $what]];
}

# $what->(bytes) for what comes from $fd; $what->(undef) at its end.
sub reads {
	my ($l, $fd, $what) = @_;
	fcntl($fd, F_SETFL, fcntl($fd, F_GETFL, 0) | O_NONBLOCK);
	$l->{readers}{fileno $fd} = $what;
	$l->{select}->add($fd);
}

sub _read {
	my ($l, $fd) = @_;
	my $what = $l->{readers}{fileno $fd};
	my $n = sysread($fd, my $bytes, 65536);
	return if !defined $n && ($! == EAGAIN || $! == EINTR);
	if (!$n) {
		delete $l->{readers}{fileno $fd};
		$l->{select}->remove($fd);
		close $fd;
		$bytes = undef;
	}
	$what->($bytes);
}

# $p{command} with its words in $p{err} (a file), $p{in} (a file); $p{read} as for `reads`, over its output; $p{end}->(status) when it
# has ended.  Returns its process.
sub spawn {
	my ($l, %p) = @_;
	pipe(my $from, my $to) or die "pipe: $!\n";
	my $pid = fork // die "fork: $!\n";
	if (!$pid) {
		setpgrp;
		open STDIN, '<', $p{in} // '/dev/null' or POSIX::_exit(126);
		open STDOUT, '>&', $to or POSIX::_exit(126);
		open STDERR, '>>', $p{err} // '/dev/null' or POSIX::_exit(126);
		exec @{$p{command}} or POSIX::_exit(127);
	}
	close $to;
	$l->reads($from, $p{read} // sub {});
	$l->{ends}{$pid} = $p{end} // sub {};
	return $pid;
}

sub running { my ($l, $pid) = @_; $pid && exists $l->{ends}{$pid} }

sub _reap {
	my $l = shift;
	while ((my $pid = waitpid(-1, WNOHANG)) > 0) {
		my $status = $?;
		my $end = delete $l->{ends}{$pid};
		$end->($status) if $end;
	}
}

# Whatever happens next, within $seconds.
sub turn {
	my ($l, $seconds) = @_;
	my $first = @{$l->{timers}} ? $l->{timers}[0][0] - time : $seconds;
	my $wait = $first < $seconds ? $first : $seconds;
	$l->_read($_) for $l->{select}->can_read($wait > 0 ? $wait : 0);
	while (@{$l->{timers}} && $l->{timers}[0][0] <= time) {
		(shift @{$l->{timers}})->[1]->();
	}
	$l->_reap;
}

# Until $done->() is true; false when $seconds were not enough.
sub until {
	my ($l, $seconds, $done) = @_;
	my $end = time + $seconds;
	while (!$done->()) {
		return 0 if time > $end;
		$l->turn(0.1);
	}
	return 1;
}

sub kill_all {
	my $l = shift;
	kill 'CONT', keys %{$l->{ends}};
	kill 'KILL', keys %{$l->{ends}};
	$l->until(10, sub { !%{$l->{ends}} });
}

1;
