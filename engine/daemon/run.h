/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `asof run`: the daemon.
 *
 *   main thread   signals, configuration, fleet, children, schedules, service manager; it waits in
 *                 one poll(2) and does nothing that takes long
 *   pools         captures, recorders, upkeep, state machines (pools.h)
 *   control       the control socket (control.h)
 *   hub           inotify for all captures (capture/hub.c)
 *
 * Signals.  SIGTERM, SIGINT: the application of -exec first, then the last commits, then the end,
 * with status 0, or the application's.  SIGHUP: the configuration is loaded again; what is the
 * same goes on untouched, and a broken one changes nothing and is said why.  SIGUSR1, SIGUSR2,
 * SIGQUIT, SIGWINCH go to the application of -exec.
 *
 * Service manager (notify.h): READY=1 when every database that exists is replicated, or has been
 * tried; RELOADING=1; STOPPING=1; STATUS=; WATCHDOG=1 only while no task has waited for a thread,
 * and no capture has hung, for half of the time that the watchdog gives.
 */
#ifndef ASOF_DAEMON_RUN_H
#define ASOF_DAEMON_RUN_H

#include "engine/config/config.h"

struct run_options {
	struct config_options config;
	bool once;            /* bring every database up to date, do what is due, end */
	const char *exec;     /* instead of the configuration's; NULL: that */
	const char *program;  /* asof itself, for children */
	bool log_level_given; /* on the command line: the configuration's does not count */
};

/*
 * Runs until it is told to end.  *ret_status: the exit status, when 0 is returned.  Errors are
 * those of the start (USAGE: the configuration, its messages logged one by one), and of databases
 * that could not be brought up to date with `once`.
 */
int run_daemon(const struct run_options *options, int *ret_status, struct err *err) MUST_USE;

#endif
