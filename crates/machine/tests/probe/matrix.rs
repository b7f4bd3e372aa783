//! Dispatch: command numbers, sizes, pointers, encodings, write-back.

use luosim_abi::KResult;
use luosim_abi::ioctl::Command;
use luosim_machine::address_space::Protection;

use super::{AS, PG, Probe, en};

impl Probe {
    fn raw(&mut self, fd: i32, code: u32, addr: u64) -> KResult<()> {
        self.m.ioctl(self.p, fd, code, addr)
    }

    fn put(&mut self, addr: u64, bytes: &[u8]) {
        self.m.process_memory(self.p).expect("alive").write(addr, bytes).expect("mapped");
    }

    fn peek(&mut self, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.m.process_memory(self.p).expect("alive").read(addr, &mut bytes).expect("mapped");
        bytes
    }

    /// A structure whose call would succeed: fresh name, or fresh file and token.
    fn vary(&mut self, command: Command, valid: &[u8]) -> Vec<u8> {
        let mut bytes = valid.to_vec();
        self.unique += 1;
        match command {
            Command::CreateSession => {
                let name = format!("u{}", self.unique);
                bytes[8..8 + name.len()].copy_from_slice(name.as_bytes());
            }
            Command::PreserveFd => {
                let fd = self.mf(0, PG, 1, PG);
                bytes[4..8].copy_from_slice(&fd.to_le_bytes());
                bytes[8..16].copy_from_slice(&(1000 + self.unique).to_le_bytes());
            }
            _ => {}
        }
        bytes
    }

    fn matrix(&mut self, topic: &str, fd: i32, command: Command, valid: &[u8]) {
        let size = u32::try_from(valid.len()).expect("small");
        let page = 4096;
        let base = self.m.process_memory(self.p).expect("alive").map(32 * PG);
        let sizes: [(&str, u32, bool); 9] = [
            ("size-0", 0, false),
            ("size-4", 4, false),
            ("size-min-1", size - 1, false),
            ("size-exact", size, false),
            ("size-plus-8-zero", size + 8, false),
            ("size-plus-8-nonzero-last", size + 8, true),
            ("size-plus-page-zero", size + page, false),
            ("size-huge-zero-then-unmapped", u32::MAX, false),
            ("enc", size, false),
        ];
        let zeros = vec![0; 32 * 4096];
        for (case, given, tail) in sizes {
            self.put(base, &zeros);
            let bytes = self.vary(command, valid);
            self.put(base, &bytes);
            self.put(base, &given.to_le_bytes());
            if tail {
                self.put(base + u64::from(given) - 1, &[1]);
            }
            if case == "enc" {
                self.encodings(topic, fd, command, size, base);
                continue;
            }
            let result = self.raw(fd, command.code(), base);
            let word = u32::from_le_bytes(self.peek(base, 4).try_into().expect("four bytes"));
            let kept = if word == given { -1 } else { i64::from(word) };
            let after = if given == u32::MAX { String::new() } else { format!(" size-after={kept}") };
            self.say(&format!("pub.{topic}.{case}"), format!("{}{after}", en(&result)));
            self.undo(command, &result, base);
        }
        let edge = base + 32 * PG - 4;
        self.put(edge, &size.to_le_bytes());
        let result = self.raw(fd, command.code(), edge);
        self.say(&format!("pub.{topic}.only-size-mapped"), en(&result));
        let result = self.raw(fd, command.code(), 0);
        self.say(&format!("pub.{topic}.null"), en(&result));
    }

    fn encodings(&mut self, topic: &str, fd: i32, command: Command, size: u32, base: u64) {
        for (name, direction) in [("IOW", 1u32), ("IOWR", 3)] {
            let result = self.raw(fd, (direction << 30) | (size << 16) | command.code(), base);
            self.say(&format!("pub.{topic}.enc-{name}"), en(&result));
        }
        let result = self.raw(fd, (command.code() & 0xff) | 0xBB00, base);
        self.say(&format!("pub.{topic}.wrong-type-0xBB"), en(&result));
    }

    fn undo(&mut self, command: Command, result: &KResult<()>, base: u64) {
        if result.is_ok() && command == Command::CreateSession {
            let fd = self.peek(base + 4, 4);
            self.close(i32::from_le_bytes(fd.try_into().expect("four bytes")));
        }
    }

    pub(super) fn t_dispatch(&mut self) {
        let s = self.create(b"disp").expect("new");
        let base = self.m.process_memory(self.p).expect("alive").map(PG);
        self.put(base, &72u32.to_le_bytes());
        for nr in [0x02u32, 0x04, 0x06, 0x3f, 0x40, 0x42, 0x43, 0x7f, 0x80] {
            let result = self.raw(self.dev, 0xBA00 | nr, base);
            self.say(&format!("pub.disp.dev-nr-0x{nr:02x}"), en(&result));
        }
        for nr in [0x00u32, 0x01, 0x3f, 0x44, 0x46, 0x47, 0x80, 0xc0] {
            let result = self.raw(s, 0xBA00 | nr, base);
            self.say(&format!("pub.disp.sess-nr-0x{nr:02x}"), en(&result));
        }
        for (case, fd, code, addr) in [
            ("dev-nr-0x02-null", self.dev, 0xBA02, 0),
            ("sess-nr-0x44-null", s, 0xBA44, 0),
            ("dev-cmd-0", self.dev, 0, base),
            ("sess-cmd-0x40", s, 0x40, base),
        ] {
            let result = self.raw(fd, code, addr);
            self.say(&format!("pub.disp.{case}"), en(&result));
        }
        self.matrices(s);
        self.write_back(base);
    }

    fn matrices(&mut self, s: i32) {
        let dev = self.dev;
        self.matrix("mx-create", dev, Command::CreateSession, &[0; 72]);
        let mut unknown = [0; 72];
        unknown[8..23].copy_from_slice(b"no-such-session");
        self.matrix("mx-retrieve-session", dev, Command::RetrieveSession, &unknown);
        self.matrix("mx-preserve", s, Command::PreserveFd, &[0; 16]);
        let mut token = [0; 16];
        token[8..16].copy_from_slice(&77777u64.to_le_bytes());
        self.matrix("mx-retrieve-fd-outgoing", s, Command::RetrieveFd, &token);
        self.matrix("mx-get-name", s, Command::GetName, &[0; 72]);
        self.close(s);
        let s = self.create(b"disp-fin").expect("new");
        self.matrix("mx-finish-outgoing", s, Command::Finish, &[0; 8]);
        self.close(s);
    }

    pub(super) fn incoming_matrices(&mut self, s: i32) {
        let mut token = [0; 16];
        token[8..16].copy_from_slice(&424_242u64.to_le_bytes());
        self.matrix("mx-retrieve-fd-incoming", s, Command::RetrieveFd, &token);
        let result = self.m.finish(self.p, s, 5);
        let after = self.retrieve(s, 1);
        self.say(
            "pub.sess2.finish-reserved-nonzero",
            format!("{} retrieve-after={}", en(&result), en(&after)),
        );
        self.matrix("mx-finish-incoming", s, Command::Finish, &[0; 8]);
    }

    fn write_back(&mut self, base: u64) {
        let s = self.create(b"gn").expect("new");
        let mut get = [0xAA; 72];
        get[..4].copy_from_slice(&72u32.to_le_bytes());
        get[4..8].copy_from_slice(&1u32.to_le_bytes());
        self.put(base, &get);
        let result = self.raw(s, 0xBA43, base);
        self.say("pub.disp.get-name-reserved-nonzero", en(&result));
        get[4..8].fill(0);
        self.put(base, &get);
        let result = self.raw(s, 0xBA43, base);
        let after = self.peek(base, 72);
        let dirty = after[11..72].iter().filter(|byte| **byte != 0).count();
        let answer = if result.is_ok() {
            format!(
                "ok name={} tail-nonzero={dirty}",
                super::escape(after[8..72].split(|byte| *byte == 0).next().unwrap_or(&[]))
            )
        } else {
            format!("{} name= tail-nonzero=-1", en(&result))
        };
        self.say("pub.disp.get-name-input-garbage", answer);
        self.close(s);
        self.read_only(base);
    }

    fn read_only(&mut self, base: u64) {
        let protect = |probe: &mut Self, protection| {
            probe.m.process_memory(probe.p).expect("alive").protect(base, PG, protection);
        };
        let mut create = [0; 72];
        create[..4].copy_from_slice(&72u32.to_le_bytes());
        create[8..17].copy_from_slice(b"ro-create");
        self.put(base, &create);
        protect(self, Protection::ReadOnly);
        let before = self.m.dup(self.p, self.dev).expect("room");
        self.close(before);
        let result = self.raw(self.dev, 0xBA00, base);
        let after = self.m.dup(self.p, self.dev).expect("room");
        self.close(after);
        let leaked = if before == after { "no" } else { "yes" };
        self.say("pub.disp.create-readonly-arg", format!("{} fd-leaked={leaked}", en(&result)));
        let s = self.create(b"ro-create");
        self.say("pub.disp.create-readonly-arg-then-create-same", en(&s));
        self.done(s);
        protect(self, Protection::ReadWrite);
        let x = self.mf(AS, PG, 1, PG);
        let s = self.create(b"ro-pres").expect("new");
        let mut preserve = [0; 16];
        preserve[..4].copy_from_slice(&16u32.to_le_bytes());
        preserve[4..8].copy_from_slice(&x.to_le_bytes());
        preserve[8] = 5;
        self.put(base, &preserve);
        protect(self, Protection::ReadOnly);
        let result = self.raw(s, 0xBA40, base);
        self.say("pub.disp.preserve-readonly-arg", en(&result));
        let again = self.preserve(s, x, 5);
        self.say("pub.disp.preserve-readonly-arg-then-same-token", en(&again));
        protect(self, Protection::ReadWrite);
        self.close(s);
        self.close(x);
    }
}
