/*
 * threads [ROUNDS]: 8 threads storm create/preserve/close and vfork+exec while a timer signals every 200 us.
 *
 * No stages. ROUNDS per thread, default 500. Right answers only: a name that was closed must be free at once (a
 * call that runs twice because of a signal would leave EEXIST), a token is taken after its preserve, a memfd
 * preserved twice under one token is EEXIST, and nothing is ever EINTR. One exception is right: between
 * vfork and exec a child holds copies of all descriptors, so a name may stay taken that long.
 */
#include "luo.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/time.h>

const char *const test_name = "threads";

#define THREADS 8

static int device, rounds = 500;
static volatile sig_atomic_t ticks;
static atomic_int vforks_begun, vforks_running;

static void on_tick(int signal)
{
	(void)signal;
	ticks++;
}

/* A name is free at once, unless a vfork child may have had a copy since our last create (`seen`). */
static int create(int id, int round, const char *name, int *seen)
{
	int session;

	for (int tries = 0;; tries++) {
		int begun = atomic_load(&vforks_begun), excused = begun != *seen || atomic_load(&vforks_running);

		session = luo_create(device, name);
		if (session >= 0)
			*seen = atomic_load(&vforks_running) ? begun - 1 : begun;
		if (session >= 0 || errno != EEXIST || tries == 20000)
			break;
		/* One may have begun since: look again before calling it wrong. */
		if (!excused && begun == atomic_load(&vforks_begun))
			break;
		usleep(200);
	}
	if (session < 0)
		fail("thread %d round %d: create: errno %d", id, round, errno);
	return session;
}

static void storm(int id, int round, int *seen)
{
	char name[64];
	int session, memory, copy;

	snprintf(name, sizeof name, "thread-%d", id);
	session = create(id, round, name, seen);
	must_fail(luo_create(device, name), EEXIST);
	memory = memfd_create("m", MFD_CLOEXEC);
	must(memory >= 0);
	must(luo_preserve(session, memory, (uint64_t)round) == 0);
	must_fail(luo_preserve(session, memory, (uint64_t)round), EEXIST);
	copy = fcntl(session, F_DUPFD_CLOEXEC, 3);
	must(copy >= 0);
	close(session);
	must_fail(luo_create(device, name), EEXIST);
	close(memory);
	close(copy);
}

static void run_true(void)
{
	/* A shell may restart, be missing, or be slow: execute ourselves with a word that ends at once. */
	char *args[] = { (char *)"threads", (char *)"--nothing", NULL };
	pid_t child;

	atomic_fetch_add(&vforks_running, 1);
	atomic_fetch_add(&vforks_begun, 1);
	child = vfork();

	if (child == 0) {
		execv("/proc/self/exe", args);
		_exit(2);
	}
	must(child > 0);
	luo_wait(child);
	atomic_fetch_sub(&vforks_running, 1);
}

static void *worker(void *arg)
{
	int id = (int)(intptr_t)arg, seen = 0;

	for (int round = 0; round < rounds; round++) {
		storm(id, round, &seen);
		if (round % 100 == 50)
			run_true();
	}
	return NULL;
}

static void start_timer(void)
{
	struct sigaction action = { .sa_handler = on_tick, .sa_flags = SA_RESTART };
	struct itimerval every = { { 0, 200 }, { 0, 200 } };

	must(sigaction(SIGALRM, &action, NULL) == 0);
	must(setitimer(ITIMER_REAL, &every, NULL) == 0);
}

int main(int argc, char **argv)
{
	pthread_t thread[THREADS];

	if (luo_has(argc, argv, "--nothing"))
		return 0;
	if (argc > 1 && atoi(argv[1]) > 0)
		rounds = atoi(argv[1]);
	device = luo_open();
	start_timer();
	for (int i = 0; i < THREADS; i++)
		must(pthread_create(&thread[i], NULL, worker, (void *)(intptr_t)i) == 0);
	for (int i = 0; i < THREADS; i++)
		must(pthread_join(thread[i], NULL) == 0);
	must(ticks > 0);
	/* vfork children held no copy: all names are free. */
	for (int i = 0; i < THREADS; i++) {
		char name[64];

		snprintf(name, sizeof name, "thread-%d", i);
		must(luo_create(device, name) >= 0);
	}
	pass();
}
