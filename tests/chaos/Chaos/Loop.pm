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
	return if $l->{closing};
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
# has ended and its output was read.  Returns its process.
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
	my $r = $l->{ends}{$pid} = {end => $p{end} // sub {}, open => 1};
	my $read = $p{read} // sub {};
	$l->reads($from, sub {
		$read->(@_);
		$r->{open} = 0 unless defined $_[0];
		$l->_finished($pid);
	});
	return $pid;
}

sub _finished {
	my ($l, $pid) = @_;
	my $r = $l->{ends}{$pid};
	return if !$r || $r->{open} || !defined $r->{status};
	delete $l->{ends}{$pid};
	$r->{end}->($r->{status});
}

sub running { my ($l, $pid) = @_; $pid && exists $l->{ends}{$pid} }

sub _reap {
	my $l = shift;
	while ((my $pid = waitpid(-1, WNOHANG)) > 0) {
		$l->{ends}{$pid}{status} = $? if $l->{ends}{$pid};
		$l->_finished($pid);
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

# Run a command while everything else goes on; its status.
sub run {
	my ($l, $seconds, @command) = @_;
	my $status;
	$l->spawn(command => \@command, end => sub { $status = shift });
	return $l->until($seconds, sub { defined $status }) ? $status : -1;
}

# The end: nothing is started again.
sub kill_all {
	my $l = shift;
	@$l{qw(closing timers)} = (1, []);
	kill 'CONT', keys %{$l->{ends}};
	kill 'KILL', keys %{$l->{ends}};
	$l->until(10, sub { !%{$l->{ends}} });
}

1;
