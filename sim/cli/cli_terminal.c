/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Interruption and progress: the only places that look at signals and at the clock. */
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

void apmw_cli_catch_interrupt(void)
{
    /* The handler is used up by the first signal, so the second one kills. */
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool apmw_cli_interrupted(void)
{
    return interrupted != 0;
}

static bool line_shown;
static struct timespec last_drawn;

static double seconds_between(struct timespec a, struct timespec b)
{
    return (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
}

void apmw_cli_progress(const apmw_cli *cli, const char *what, size_t done, size_t total)
{
    if (cli->quiet || !isatty(STDERR_FILENO))
        return;
    if (total > 0 && done >= total) {
        apmw_cli_progress_end(cli);
        return;
    }
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (line_shown && seconds_between(last_drawn, now) < 0.2)
        return;
    last_drawn = now;
    line_shown = true;
    if (total == 0) {
        fprintf(stderr, "\r\033[K%s: %zu", what, done);
    } else {
        char bar[] = "..............................";
        size_t length = sizeof bar - 1, full = done * length / total;
        for (size_t i = 0; i < full && i < length; i++)
            bar[i] = '#';
        fprintf(stderr, "\r\033[K[%s] %s: %zu of %zu", bar, what, done, total);
    }
    fflush(stderr);
}

void apmw_cli_progress_end(const apmw_cli *cli)
{
    (void)cli;
    if (!line_shown)
        return;
    fputs("\r\033[K", stderr);
    fflush(stderr);
    line_shown = false;
}
