/*
 * nolibc [1|2] [-k]: x86-64 without any library, own _start and system calls, as a boot loader would do it.
 *
 * Stage 1: create, preserve, close the device, leak the session until the kexec (-k), or leave a child holding it.
 * Stage 2: retrieve, compare, FINISH, close. Build: cc -O2 -nostdlib -static -ffreestanding.
 */
typedef unsigned int u32;
typedef unsigned long u64;

enum {
	SYS_write = 1, SYS_open = 2, SYS_close = 3, SYS_ioctl = 16, SYS_pause = 34, SYS_fork = 57,
	SYS_exit = 60, SYS_setsid = 112, SYS_reboot = 169, SYS_pread = 17, SYS_pwrite = 18, SYS_ftruncate = 77,
	SYS_memfd_create = 319, SYS_kexec_file_load = 320
};
enum { EBADF = 9, ENOENT = 2, EEXIST = 17, EINVAL = 22, ENODEV = 19, ENXIO = 6 };
enum { O_RDWR = 2, O_CLOEXEC = 02000000 };

struct session { u32 size; int fd; char name[64]; };
struct file { u32 size; int fd; u64 token; };
struct finish { u32 size, zero; };

static long call5(long nr, long a, long b, long c, long d, long e)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	long result;

	__asm__ volatile("syscall" : "=a"(result) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return result;
}
#define call(nr, a, b, c) call5(nr, (long)(a), (long)(b), (long)(c), 0, 0)

/* The compiler may call these even without a library. */
void *memset(void *to, int byte, u64 n)
{
	void *result = to;

	__asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(byte) : "memory");
	return result;
}

void *memcpy(void *to, const void *from, u64 n)
{
	void *result = to;

	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
	return result;
}

static u64 length(const char *s)
{
	u64 n = 0;

	while (s[n])
		n++;
	return n;
}

static int same(const char *a, const char *b, u64 n)
{
	for (u64 i = 0; i < n; i++)
		if (a[i] != b[i])
			return 0;
	return 1;
}

static void say(const char *s)
{
	call(SYS_write, 1, s, length(s));
}

__attribute__((noreturn)) static void leave(int code)
{
	for (;;)
		call(SYS_exit, code, 0, 0);
}

__attribute__((noreturn)) static void fail(const char *what, long got)
{
	char text[24];
	int at = sizeof text - 1;
	u64 n = got < 0 ? -(u64)got : (u64)got;

	text[at] = 0;
	do {
		text[--at] = (char)('0' + n % 10);
		n /= 10;
	} while (n);
	if (got < 0)
		text[--at] = '-';
	say("FAIL nolibc: ");
	say(what);
	say(" gave ");
	say(text + at);
	say("\n");
	leave(1);
}

static void want(const char *what, long got, long wanted)
{
	if (got != wanted)
		fail(what, got);
}

static long positive(const char *what, long got)
{
	if (got < 0)
		fail(what, got);
	return got;
}

static long get_session(long device, long command, const char *name)
{
	struct session arg;
	long r;

	memset(&arg, 0, sizeof arg);
	arg.size = sizeof arg;
	memcpy(arg.name, name, length(name));
	r = call(SYS_ioctl, device, command, &arg);
	return r < 0 ? r : arg.fd;
}

static long file_call(long session, long command, int fd, u64 token)
{
	struct file arg = { sizeof arg, fd, token };
	long r = call(SYS_ioctl, session, command, &arg);

	return r < 0 ? r : arg.fd;
}

static const char text[] = "no library at all";

static void first(long device)
{
	long session = positive("create", get_session(device, 0xBA00, "tinyboot"));
	long memory = positive("memfd_create", call(SYS_memfd_create, "m", 1, 0));

	want("create again", get_session(device, 0xBA00, "tinyboot"), -EEXIST);
	want("ftruncate", call(SYS_ftruncate, memory, 8192, 0), 0);
	want("pwrite", call5(SYS_pwrite, memory, (long)text, sizeof text, 4000, 0), sizeof text);
	want("preserve", file_call(session, 0xBA40, (int)memory, 7), memory);
	want("preserve a used token", file_call(session, 0xBA40, -1, 7), -EEXIST);
	want("preserve a bad fd", file_call(session, 0xBA40, -1, 8), -EBADF);
	want("unknown command", call(SYS_ioctl, session, 0xBA4F, 0), -EINVAL);
	want("close memory", call(SYS_close, memory, 0, 0), 0);
	want("close device", call(SYS_close, device, 0, 0), 0);
}

static void second(long device)
{
	struct finish finish = { sizeof finish, 0 };
	long session = positive("retrieve session", get_session(device, 0xBA01, "tinyboot"));
	long memory = positive("retrieve", file_call(session, 0xBA41, -1, 7));
	char got[sizeof text];

	want("retrieve session twice", get_session(device, 0xBA01, "tinyboot"), -EINVAL);
	want("retrieve unknown", file_call(session, 0xBA41, -1, 8), -ENOENT);
	want("pread", call5(SYS_pread, memory, (long)got, sizeof got, 4000, 0), sizeof got);
	want("content", same(got, text, sizeof text), 1);
	want("finish", call(SYS_ioctl, session, 0xBA42, &finish), 0);
	want("close session", call(SYS_close, session, 0, 0), 0);
	want("gone", get_session(device, 0xBA01, "tinyboot"), -ENOENT);
}

static void custodian(void)
{
	if (positive("fork", call(SYS_fork, 0, 0, 0)))
		return;
	call(SYS_setsid, 0, 0, 0);
	for (int i = 0; i < 3; i++)
		call(SYS_close, i, 0, 0);
	for (;;)
		call(SYS_pause, 0, 0, 0);
}

static void jump(void)
{
	static const char cmdline[] = "kho=on liveupdate=on luo_test=1";
	long image = positive("open image", call(SYS_open, "/proc/self/exe", 0, 0));
	long r = call5(SYS_kexec_file_load, image, -1, sizeof cmdline, (long)cmdline, 4);

	want("kexec_file_load", r, 0);
	fail("reboot", call5(SYS_reboot, 0xfee1dead, 672274793, 0x45584543, 0, 0));
}

static int stage_of(char **argv, char **envp, int *do_jump)
{
	static const char key[] = "LUOSIM_GENERATION=";
	int stage = 0;

	for (int i = 1; argv[0] && argv[i]; i++) {
		if (argv[i][0] == '-' && argv[i][1] == 'k')
			*do_jump = 1;
		else if (!stage && argv[i][0] >= '1' && argv[i][0] <= '9')
			stage = argv[i][0] - '0';
	}
	for (; !stage && *envp; envp++)
		if (length(*envp) >= sizeof key && same(*envp, key, sizeof key - 1))
			stage = (*envp)[sizeof key - 1] == '1' && !(*envp)[sizeof key] ? 1 : 2;
	return stage ? stage : 1;
}

__attribute__((noreturn, used)) static void start(long *stack)
{
	char **argv = (char **)(stack + 1), **envp = argv + stack[0] + 1;
	int do_jump = 0, stage = stage_of(argv, envp, &do_jump);
	long device = call(SYS_open, "/dev/liveupdate", O_RDWR | O_CLOEXEC, 0);

	if (device == -ENOENT || device == -ENODEV || device == -ENXIO) {
		say("SKIP nolibc: no /dev/liveupdate\n");
		leave(77);
	}
	positive("open device", device);
	if (stage == 1)
		first(device);
	else
		second(device);
	if (stage == 1 && do_jump)
		jump();
	if (stage == 1)
		custodian();
	say("PASS nolibc\n");
	leave(0);
}

__asm__(".globl _start\n_start:\n\txor %ebp,%ebp\n\tmov %rsp,%rdi\n\tand $-16,%rsp\n\tcall start\n");
