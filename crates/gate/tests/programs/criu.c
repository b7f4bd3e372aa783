/*
 * criu [1|2] [-k] [-n FILES]: many memfds with hashed tokens; restore from several processes that share a session.
 *
 * Stage 1: FILES images (default 100, the most for all releases is 128), a forked daemon holds only the session.
 * Stage 2: four processes share the session, each retrieves its share, at a preserved position, then each runs
 * FINISH, after all have retrieved (a barrier: the first FINISH ends it for all); the files stay usable.
 */
#include "luo.h"

const char *const test_name = "criu";

#define TASKS 4
#define SESSION "criu-images"

static uint64_t token(int i)
{
	uint64_t hash = 14695981039346656037ULL;
	char path[32];

	snprintf(path, sizeof path, "pages-%d.img", i);
	for (const char *c = path; *c; c++)
		hash = (hash ^ (unsigned char)*c) * 1099511628211ULL;
	return hash ^ ((uint64_t)i << 48);
}

static void text_of(int i, char *text, size_t size)
{
	snprintf(text, size, "image number %d", i);
}

static void dump(int files)
{
	int device = luo_open(), session = luo_create(device, SESSION);
	pid_t holder;
	char text[64];

	must(session >= 0);
	for (int i = 0; i < files; i++) {
		int image = memfd_create("memfd_luo", MFD_CLOEXEC);

		must(image >= 0);
		text_of(i, text, sizeof text);
		must(write(image, text, strlen(text)) == (ssize_t)strlen(text));
		must(luo_preserve(session, image, token(i)) == 0);
		close(image);
	}
	close(device);
	holder = luo_custodian();
	must(holder > 0);
	close(session);
	/* Still alive through the daemon: the name is taken. */
	device = luo_open();
	must_fail(luo_create(device, SESSION), EEXIST);
	close(device);
}

static void restore_share(int session, int task, int files, int done, int go)
{
	int fds[1024], n = 0;
	char text[64], got[64], byte;

	for (int i = task; i < files; i += TASKS) {
		int image = luo_retrieve(session, token(i));

		if (image < 0)
			fail("task %d: image %d: errno %d", task, i, errno);
		text_of(i, text, sizeof text);
		/* Position is that of the dump: at the end. */
		must(lseek(image, 0, SEEK_CUR) == (off_t)strlen(text));
		must(lseek(image, 0, SEEK_SET) == 0);
		fds[n++] = image;
	}
	must(write(done, "d", 1) == 1);
	must(read(go, &byte, 1) == 1);
	must(luo_finish(session) == 0);
	must_fail(luo_retrieve(session, token(task)), ENOENT);
	close(session);
	for (int k = 0; k < n; k++) {
		memset(got, 0, sizeof got);
		text_of(task + k * TASKS, text, sizeof text);
		must(read(fds[k], got, sizeof got - 1) == (ssize_t)strlen(text));
		must(!strcmp(got, text));
		must(ftruncate(fds[k], 8192) == 0); /* ordinary files again */
	}
	_exit(0);
}

static void restore(int files)
{
	int device = luo_open(), session = luo_take(device, SESSION), done[2], go[2];
	pid_t child[TASKS];
	char byte;

	must(session >= 0);
	must_fail(luo_retrieve(session, 1), ENOENT);
	must(pipe2(done, O_CLOEXEC) == 0 && pipe2(go, O_CLOEXEC) == 0);
	for (int t = 0; t < TASKS; t++) {
		child[t] = fork();
		must(child[t] >= 0);
		if (child[t] == 0) {
			close(done[0]);
			close(go[1]);
			restore_share(session, t, files, done[1], go[0]);
		}
	}
	close(done[1]);
	close(go[0]);
	for (int t = 0; t < TASKS; t++)
		if (read(done[0], &byte, 1) != 1)
			_exit(1); /* the task has said why */
	must(write(go[1], "gggg", TASKS) == TASKS);
	for (int t = 0; t < TASKS; t++)
		luo_wait(child[t]);
	close(session);
	must_fail(luo_take(device, SESSION), ENOENT);
}

int main(int argc, char **argv)
{
	int files = 100;

	for (int i = 1; i + 1 < argc; i++)
		if (!strcmp(argv[i], "-n")) {
			files = atoi(argv[i + 1]);
			argv[i + 1] = argv[i]; /* the number is no stage */
			break;
		}
	must(files >= TASKS && files <= 1024);
	if (luo_stage(argc, argv) == 1) {
		dump(files);
		luo_end_stage(argc, argv);
	}
	restore(files);
	pass();
}
