//! File-lifecycle-bound objects: when each callback comes, in which order, and what a failure leaves.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use luosim_abi::release::ReleaseId;
use luosim_abi::{Errno, KResult};
use luosim_luo::flb::FlbOps;
use luosim_luo::test_flbs::TestFlbs;
use luosim_luo::{Host, Luo, LuoConfig};

use crate::recorder::Recorder;
use crate::world::{World, boot, boot_on, create, finish, preserve, take, try_preserve};

/// An object that writes down its calls and can refuse two of them.
struct Object {
    name: &'static str,
    calls: Rc<RefCell<Vec<String>>>,
    refuse: Cell<Option<Errno>>,
}

impl Object {
    fn called(&self, what: &str) -> KResult<()> {
        self.calls.borrow_mut().push(format!("{} {what}", self.name));
        self.refuse.get().map_or(Ok(()), |errno| Err(errno.because("the test refuses")))
    }
}

impl FlbOps<World> for Object {
    fn compatible(&self) -> &'static str {
        self.name
    }

    fn preserve(&self, _: &mut World) -> KResult<u64> {
        self.called("preserve").map(|()| 0x1000 + u64::from(self.name.as_bytes()[0]))
    }

    fn unpreserve(&self, _: &mut World, data: u64) {
        let _ = self.called(&format!("unpreserve {data:#x}"));
    }

    fn retrieve(&self, _: &mut World, data: u64) -> KResult<()> {
        self.called(&format!("retrieve {data:#x}"))
    }

    fn finish(&self, _: &mut World, data: u64) {
        let _ = self.called(&format!("finish {data:#x}"));
    }
}

type Calls = Rc<RefCell<Vec<String>>>;

/// A kernel with the handler `test-v1` and objects `a` and `b` on it.
fn with_objects((world, mut luo): (World, Luo<World>)) -> (World, Luo<World>, Calls, [Rc<Object>; 2]) {
    luo.register_handler(Rc::new(Recorder::default())).expect("the first");
    let calls = Calls::default();
    let objects =
        ["a", "b"].map(|name| Rc::new(Object { name, calls: calls.clone(), refuse: Cell::new(None) }));
    for object in &objects {
        luo.register_flb("test-v1", object.clone()).expect("a new object");
    }
    (world, luo, calls, objects)
}

fn drain(calls: &Calls) -> Vec<String> {
    calls.borrow_mut().drain(..).collect()
}

#[test]
fn the_first_file_preserves_and_the_last_unpreserves() {
    let (mut world, mut luo, calls, _) = with_objects(boot(ReleaseId::V7_3));
    let (one, two) = (create(&mut luo, &mut world, b"one"), create(&mut luo, &mut world, b"two"));
    preserve(&mut luo, &mut world, one, 1);
    assert_eq!(drain(&calls), ["a preserve", "b preserve"]);
    preserve(&mut luo, &mut world, one, 2);
    preserve(&mut luo, &mut world, two, 3);
    luo.release_session(&mut world, one);
    assert!(drain(&calls).is_empty(), "a file of another session is left");
    luo.release_session(&mut world, two);
    assert_eq!(drain(&calls), ["b unpreserve 0x1062", "a unpreserve 0x1061"]);
    let one = create(&mut luo, &mut world, b"one");
    preserve(&mut luo, &mut world, one, 1);
    assert_eq!(drain(&calls), ["a preserve", "b preserve"]);
}

#[test]
fn a_refused_preserve_undoes_the_objects_before_it_and_the_file() {
    let (mut world, mut luo, calls, objects) = with_objects(boot(ReleaseId::V7_3));
    let session = create(&mut luo, &mut world, b"one");
    objects[1].refuse.set(Some(Errno::ENODEV));
    let refusal = try_preserve(&mut luo, &mut world, session, 1).expect_err("b refuses");
    assert_eq!(refusal.errno, Errno::ENODEV);
    assert_eq!(drain(&calls), ["a preserve", "b preserve", "a unpreserve 0x1061"]);
    objects[1].refuse.set(None);
    preserve(&mut luo, &mut world, session, 1);
    assert_eq!(drain(&calls), ["a preserve", "b preserve"], "nothing was left of the first try");
}

/// A live update with two files in two sessions; gives the next kernel.
fn over(release: ReleaseId) -> (World, Luo<World>) {
    let (mut world, mut luo, ..) = with_objects(boot(release));
    let (one, two) = (create(&mut luo, &mut world, b"one"), create(&mut luo, &mut world, b"two"));
    preserve(&mut luo, &mut world, one, 1);
    preserve(&mut luo, &mut world, two, 2);
    luo.reboot(&mut world).expect("nobody refuses");
    let params =
        world.kho.params_for_kexec(&mut world.ram).expect("KHO is on").expect("the root tree exists");
    boot_on(release, world.ram.into_mem(), Some(params))
}

/// Releases with objects: two with the node of `luo-v1`, one with the field of `luo-v5`.
const WITH_OBJECTS: [ReleaseId; 3] = [ReleaseId::V7_0, ReleaseId::V7_1, ReleaseId::V7_3];

#[test]
fn the_next_kernel_retrieves_at_the_first_get_and_finishes_with_the_last_file() {
    WITH_OBJECTS.into_iter().for_each(retrieved_and_finished);
}

fn retrieved_and_finished(release: ReleaseId) {
    let (mut world, mut luo, calls, _) = with_objects(over(release));
    assert_eq!(luo.get_incoming_flb(&mut world, "a").expect("carried"), 0x1061);
    assert_eq!(drain(&calls), ["a retrieve 0x1061"]);
    assert_eq!(luo.get_incoming_flb(&mut world, "a").expect("carried"), 0x1061);
    assert!(drain(&calls).is_empty(), "it is retrieved once");
    luo.put_incoming_flb(&mut world, "a").expect("registered");
    luo.put_incoming_flb(&mut world, "a").expect("registered");
    for (name, left) in [(&b"one"[..], &[][..]), (b"two", &["a finish 0x1061"])] {
        let session = take(&mut luo, &mut world, name);
        finish(&mut luo, &mut world, session).expect("incoming");
        assert_eq!(drain(&calls), left);
    }
    let late = luo.get_incoming_flb(&mut world, "a").expect_err("finished");
    assert_eq!(late.errno, Errno::ENODATA);
    assert!(world.log.contains("FLB 'b' underflows: never retrieved"), "b: the kept defect");
}

#[test]
fn an_error_of_retrieve_is_kept_from_7_2_on() {
    for (release, kept) in [(ReleaseId::V7_0, false), (ReleaseId::V7_1, false), (ReleaseId::V7_3, true)] {
        let (mut world, mut luo, calls, objects) = with_objects(over(release));
        objects[0].refuse.set(Some(Errno::EIO));
        let refusal = luo.get_incoming_flb(&mut world, "a").expect_err("refused");
        assert_eq!(refusal.errno, Errno::EIO);
        objects[0].refuse.set(None);
        let again = luo.get_incoming_flb(&mut world, "a").map_err(|refusal| refusal.errno);
        assert_eq!(again, if kept { Err(Errno::EIO) } else { Ok(0x1061) }, "{release:?}");
        assert_eq!(drain(&calls).len(), if kept { 1 } else { 2 }, "{release:?}");
    }
}

#[test]
fn a_user_inside_the_kernel_holds_an_outgoing_object() {
    let (mut world, mut luo, calls, _) = with_objects(boot(ReleaseId::V7_3));
    let absent = luo.get_outgoing_flb("a").expect_err("nothing is preserved");
    assert_eq!(absent.errno, Errno::ENOENT);
    let session = create(&mut luo, &mut world, b"one");
    preserve(&mut luo, &mut world, session, 1);
    assert_eq!(luo.get_outgoing_flb("a").expect("preserved"), 0x1061);
    assert_eq!(drain(&calls), ["a preserve", "b preserve"], "getting it calls nothing");
    luo.release_session(&mut world, session);
    assert_eq!(drain(&calls), ["b unpreserve 0x1062"], "a is held");
    luo.put_outgoing_flb(&mut world, "a");
    assert_eq!(drain(&calls), ["a unpreserve 0x1061"]);
}

#[test]
fn an_object_of_data_only_cannot_be_got_while_it_is_outgoing() {
    let (mut world, mut luo) = boot(ReleaseId::V7_3);
    luo.register_handler(Rc::new(Recorder::default())).expect("the first");
    TestFlbs::new().bind(&mut luo, &mut world, "test-v1").expect("7.3 has them");
    let session = create(&mut luo, &mut world, b"one");
    preserve(&mut luo, &mut world, session, 1);
    let refusal = luo.get_outgoing_flb("liveupdate-test-flb-v0").expect_err("it has no object");
    assert_eq!(refusal.errno, Errno::ENOENT);
}

#[test]
fn with_the_orchestrator_off_there_are_no_objects() {
    let (mut world, _) = boot(ReleaseId::V7_3);
    let release = ReleaseId::V7_3.release();
    let config = LuoConfig { release, quirks: release.quirks, requested: false };
    let mut luo: Luo<World> = Luo::boot(&mut world.memory(), config).expect("nothing bad came");
    let errnos = [luo.get_outgoing_flb("a"), luo.get_incoming_flb(&mut world, "a")]
        .map(|result| result.expect_err("off").errno);
    assert_eq!(errnos, [Errno::EOPNOTSUPP; 2]);
}

#[test]
fn nothing_came() {
    let (mut world, mut luo, ..) = with_objects(boot(ReleaseId::V7_3));
    let refusal = luo.get_incoming_flb(&mut world, "a").expect_err("a cold boot");
    assert_eq!(refusal.errno, Errno::ENODATA);
    let (mut world, mut luo, ..) = with_objects(over(ReleaseId::V7_3));
    let stranger = Rc::new(Object { name: "c", calls: Calls::default(), refuse: Cell::new(None) });
    luo.register_flb("test-v1", stranger).expect("a new object");
    let refusal = luo.get_incoming_flb(&mut world, "c").expect_err("not in the table");
    assert_eq!(refusal.errno, Errno::ENOENT);
}

#[test]
fn registration_is_refused_in_the_order_of_the_kernel() {
    let (_, mut luo, _, objects) = with_objects(boot(ReleaseId::V7_3));
    let object = |name| Rc::new(Object { name, calls: Calls::default(), refuse: Cell::new(None) });
    let errno = |result: KResult<()>| result.expect_err("refused").errno;
    assert_eq!(errno(luo.register_flb("nobody", objects[0].clone())), Errno::EINVAL);
    assert_eq!(errno(luo.register_flb("test-v1", objects[0].clone())), Errno::EEXIST, "twice on one handler");
    assert_eq!(errno(luo.register_flb("test-v1", object("a"))), Errno::EEXIST, "another with its name");
    for index in 2..63 {
        let name = Box::leak(format!("object-{index}").into_boxed_str());
        luo.register_flb("test-v1", object(name)).expect("room for 63");
    }
    assert_eq!(
        errno(luo.register_flb("test-v1", object("a"))),
        Errno::ENOSPC,
        "the count is looked at first"
    );
    let (_, mut luo) = boot(ReleaseId::V6_19);
    luo.register_handler(Rc::new(Recorder::default())).expect("the first");
    assert_eq!(errno(luo.register_flb("test-v1", object("a"))), Errno::EOPNOTSUPP);
}

/// The lines of the kernel's own test objects, as recorded from real kernels.
#[test]
fn the_kernels_test_objects_say_what_real_ones_said() {
    let bind = |(mut world, mut luo): (World, Luo<World>)| {
        luo.register_handler(Rc::new(Recorder::default())).expect("the first");
        TestFlbs::new().bind(&mut luo, &mut world, "test-v1").expect("7.3 has them");
        (world, luo)
    };
    let said = |world: &World| -> Vec<String> {
        let lines = world.log.lines.iter().filter_map(|line| line.text.strip_prefix("liveupdate test: "));
        lines.map(|line| line.replace("liveupdate-test-flb-", "")).collect()
    };
    let (mut world, mut luo) = bind(boot(ReleaseId::V7_3));
    let session = create(&mut luo, &mut world, b"one");
    preserve(&mut luo, &mut world, session, 1);
    luo.release_session(&mut world, session);
    let session = create(&mut luo, &mut world, b"one");
    preserve(&mut luo, &mut world, session, 1);
    luo.reboot(&mut world).expect("nobody refuses");
    let again = ["v0: preserve was triggered", "v1: preserve was triggered", "v2: preserve was triggered"];
    let gone =
        ["v2: unpreserve was triggered", "v1: unpreserve was triggered", "v0: unpreserve was triggered"];
    let registered = "Registered 3 FLBs with file handler: [test-v1]";
    assert_eq!(said(&world), [&[registered][..], &again, &gone, &again].concat());
    let params = world.kho.params_for_kexec(&mut world.ram).expect("KHO is on").expect("always current");
    let (mut world, mut luo) = bind(boot_on(ReleaseId::V7_3, world.ram.into_mem(), Some(params)));
    let session = take(&mut luo, &mut world, b"one");
    finish(&mut luo, &mut world, session).expect("incoming");
    let found = ["v0", "v1", "v2"].map(|name| format!("{name}: found flb data from the previous boot"));
    let end = ["v2: finish was triggered", "v1: finish was triggered", "v0: finish was triggered"];
    let mut want: Vec<String> = found.to_vec();
    want.push(registered.to_owned());
    want.extend(end.map(str::to_owned));
    assert_eq!(said(&world), want);
}
