use super::*;

fn event(n: u64) -> NewEvent {
    NewEvent {
        sandbox: SandboxId::random(),
        container: (n % 2 == 1).then(ContainerId::random),
        kind: EventKind::Started,
        created_at: Timestamp(i64::try_from(n).unwrap()),
    }
}

fn times(sub: &mut Subscription) -> Vec<i64> {
    let mut all = Vec::new();
    while let Some(Ok(event)) = sub.try_next() {
        all.push(event.event.created_at.nanos());
    }
    all
}

fn publish(bus: &EventBus, range: std::ops::Range<u64>) {
    for n in range {
        bus.publish(event(n));
    }
}

#[tokio::test]
async fn every_subscriber_gets_every_event_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let bus = EventBus::open(dir.path()).unwrap();
    publish(&bus, 0..3);
    let mut one = bus.subscribe();
    let mut two = bus.subscribe();
    let wait = tokio::spawn(async move {
        let first = one.next().await;
        (first, one)
    });
    let sent = event(3);
    assert_eq!(bus.publish(sent.clone()), 4);
    let (first, mut one) = wait.await.unwrap();
    assert_eq!(first, Some(Ok(Event { sequence: 4, event: sent })), "it begins with the present");
    publish(&bus, 4..6);
    assert_eq!(times(&mut one), [4, 5]);
    assert_eq!(times(&mut two), [3, 4, 5], "a slow reader loses nothing");
    assert_eq!(bus.counts(), EventCounts { published: 6, dropped: 0, subscribers: 2 });
}

#[test]
fn a_client_that_comes_back_gets_what_it_missed() {
    let dir = tempfile::tempdir().unwrap();
    let bus = EventBus::open(dir.path()).unwrap();
    let first = bus.subscribe();
    drop(first);
    publish(&bus, 0..3);
    assert_eq!(times(&mut bus.subscribe()), [0, 1, 2]);
}

#[test]
fn a_restart_of_the_daemon_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let bus = EventBus::open(dir.path()).unwrap();
    let client = bus.subscribe();
    publish(&bus, 0..3);
    // kill -9: no destructor runs.
    std::mem::forget((client, bus));
    let bus = EventBus::open(dir.path()).unwrap();
    publish(&bus, 3..5);
    let mut again = bus.subscribe();
    assert_eq!(times(&mut again), [0, 1, 2, 3, 4]);
    assert_eq!(bus.publish(event(5)), 6, "the sequence goes on");
    assert_eq!(times(&mut bus.subscribe()), Vec::<i64>::new(), "only one client was missed");
}

#[test]
fn two_clients_that_come_back_each_get_all_they_missed() {
    let dir = tempfile::tempdir().unwrap();
    let mut cursors = Cursors::open(dir.path(), Instant::now());
    let now = Instant::now();
    let (a, _) = cursors.join(10, now);
    let (b, _) = cursors.join(10, now);
    let later = now + IN_FLIGHT * 2;
    for (client, next) in [(a, 90), (b, 100)] {
        cursors.advance(client, next, false, later);
        cursors.advance(client, next, false, later + IN_FLIGHT);
    }
    let end = later + IN_FLIGHT * 2;
    cursors.leave(b, end);
    cursors.leave(a, end);
    assert_eq!(cursors.join(200, end).1, 90);
    assert_eq!(cursors.join(200, end).1, 90, "whichever of the two it is");
    assert_eq!(cursors.join(200, end).1, 200);
}

#[test]
fn nobody_is_waited_for_for_ever_and_what_may_be_in_flight_is_given_again() {
    let dir = tempfile::tempdir().unwrap();
    let now = Instant::now();
    let mut cursors = Cursors::open(dir.path(), now);
    let (client, _) = cursors.join(1, now);
    cursors.advance(client, 5, false, now);
    cursors.leave(client, now);
    let (client, next) = cursors.join(5, now);
    assert_eq!(next, 1, "it went in the moment it was given them");
    cursors.leave(client, now);
    assert_eq!(cursors.join(5, now + GRACE).1, 5);
}

#[test]
fn one_that_falls_behind_the_ring_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { segment: 180, segments: 2, events: 1000, in_memory: 10 };
    let bus = EventBus::open_limited(dir.path(), limits).unwrap();
    let mut slow = bus.subscribe();
    publish(&bus, 0..20);
    let end = slow.try_next().unwrap().unwrap_err();
    assert!(matches!(end, SubscriptionEnd::Lagged { missed: 14.. }), "{end}");
    assert_eq!(slow.try_next(), None);
    assert!(bus.counts().dropped >= 14);
    let files = std::fs::read_dir(dir.path()).unwrap().count();
    assert!(files <= 3, "two segments and the cursors, found {files}");
    drop(slow);
    publish(&bus, 20..21);
    assert_eq!(times(&mut bus.subscribe()), [20], "it lists anew, and goes on from there");
}

#[test]
fn a_half_written_record_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let bus = EventBus::open(dir.path()).unwrap();
    let client = bus.subscribe();
    publish(&bus, 0..3);
    std::mem::forget((client, bus));
    let file = dir.path().join("events-1");
    let whole = std::fs::read(&file).unwrap();
    for cut in [1, 9, 50] {
        std::fs::write(&file, &whole[..whole.len() - cut]).unwrap();
        let bus = EventBus::open(dir.path()).unwrap();
        assert_eq!(bus.publish(event(9)), 3, "the third is gone, its number is free");
        let mut again = bus.subscribe();
        assert_eq!(times(&mut again), [0, 1, 9]);
        std::mem::forget((again, bus));
        std::fs::write(dir.path().join("cursors"), "1").unwrap();
    }
}

#[test]
fn what_cannot_be_written_is_kept_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { segment: 1, segments: 4, events: 1000, in_memory: 3 };
    let bus = EventBus::open_limited(dir.path(), limits).unwrap();
    let mut client = bus.subscribe();
    publish(&bus, 0..1);
    // A folder in the place of the next segment.
    std::fs::create_dir(dir.path().join("events-2")).unwrap();
    publish(&bus, 1..4);
    assert_eq!(times(&mut client), [0, 1, 2, 3]);
    publish(&bus, 4..6);
    assert_eq!(times(&mut client), [4, 5]);
    publish(&bus, 6..10);
    assert!(matches!(client.try_next(), Some(Err(SubscriptionEnd::Lagged { missed: 1 }))));
}

#[test]
fn the_files_are_ours_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let bus = EventBus::open(&dir.path().join("events")).unwrap();
    publish(&bus, 0..1);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir.path().join("events")), 0o700);
    assert_eq!(mode(&dir.path().join("events/events-1")), 0o600);
}

#[test]
fn who_was_missed_too_long_before_a_restart_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let now = Instant::now();
    let write = |text: String| std::fs::write(dir.path().join("cursors"), text).unwrap();
    let boot = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).unwrap().tv_sec();
    let table = [
        ("3\n".to_owned(), 3, "was there"),
        (format!("4 {}\n", boot + 100), 4, "is still waited for"),
        (format!("4 {}\n", boot + 1_000_000), 4, "from before a boot: not longer than usual"),
        (format!("4 {}\n", boot - 1), 10, "is not waited for"),
        ("x\n4 y\n".to_owned(), 10, "nonsense"),
    ];
    for (text, first, why) in table {
        write(text);
        assert_eq!(Cursors::open(dir.path(), now).join(10, now).1, first, "{why}");
    }
    write(format!("4 {}\n", boot + 1_000_000));
    assert_eq!(Cursors::open(dir.path(), now).join(10, now + GRACE).1, 10);
}
