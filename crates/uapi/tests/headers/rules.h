/* A header that breaks every rule, some of them twice. */
#include <linux/types.h>

typedef unsigned short length_t;
enum mode { MODE_A, MODE_B };

/* Types of members. */
struct types {
	int			count;
	length_t		length;
	char			letter;
	char			text[7];
	unsigned long		bits;
	size_t			bytes;
	bool			on;
	_Bool			off;
	double			share;
	enum mode		mode;
	enum { X, Y }		axis;
	void			*address;
	struct types		*next;
	unsigned int		a : 3, b : 5;
	__u32			event_fd;
	int			fd;
	__s32			good_fd;
};

/* Layouts. */
struct holes {
	__u32	size;
	__u64	value;
	__u8	last;
};
struct narrow {
	__u64	value;
	__u32	flags;
};
struct room {
	__u32	size;
	__u32	reserved;
	__u32	pad;	/* must be 0 */
};

/* Commands. */
enum {
	CMD_BASE = 0x10,
	CMD_ONE = CMD_BASE,
	CMD_TWO,
};

/**
 * struct one - ioctl(DO_ONE)
 * @size: Bytes
 * @gone: It was here once
 */
struct one {
	__u32	size;
	__u32	value;
};
#define DO_ONE	_IO('r', CMD_ONE)

struct two {
	__u32	value;
	__u32	flags;
};
/** It does something. */
#define DO_TWO		_IOW('r', CMD_TWO, struct two)
#define DO_TWO_TOO	_IOR('r', CMD_TWO, struct two)
#define DO_BARE		_IOW('r', 0x15, __u32)
#define DO_START	_IO('r', 0x16)
#define DO_STOP		_IO('r', 0x17)
#define DO_LOST		_IOW('r', 0x18, struct lost)

/* Comments that allow. */
struct allowed {
	int	old;	/* luosim-abi: allow(plain-integer) from before the rules */
	/* luosim-abi: allow(plain-integer) */
	int	older;
	__u32	fine;	/* luosim-abi: allow(plain-integer) it was int once */
	__u32	word;	/* luosim-abi: allow(no-such-rule) whatever */
};

/* What is not understood. */
struct broken {
	__u32	size;
	%%%
};
struct depends {
	struct elsewhere	it;
};
