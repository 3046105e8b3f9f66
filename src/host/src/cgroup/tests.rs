use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use crisp_model::LinuxResources;

use super::*;

const BOUND: Duration = Duration::from_secs(5);

/// A cgroup of the real host that is gone at the end, whatever happens.
struct Real {
    fs: CgroupFs,
    path: String,
}

impl Real {
    /// `None` (and a word) on a host where cgroups cannot be made.
    fn new(name: &str) -> Option<Self> {
        let fs = CgroupFs::detect().ok()?;
        let path = format!("/crisp-test-{}-{name}/pod", std::process::id());
        if let Err(error) = fs.create(&path) {
            eprintln!("skipped: {error}");
            return None;
        }
        Some(Self { fs, path })
    }

    fn sleeper(&self) -> Child {
        let child = Command::new("/bin/sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        self.fs.join(&self.path, i32::try_from(child.id()).unwrap()).unwrap();
        child
    }

    fn file(&self, controller: &str, name: &str) -> String {
        let dir = self.fs.path(controller, &self.path).unwrap().unwrap();
        fs::read_to_string(dir.join(name)).unwrap().trim().to_owned()
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.fs.kill_all(&self.path, BOUND);
        let _ = self.fs.remove(&self.path, BOUND);
        let parent = self.path.trim_end_matches("/pod").to_owned();
        let _ = self.fs.remove(&parent, BOUND);
    }
}

#[test]
fn a_cgroup_is_made_filled_emptied_and_removed_with_its_children() {
    let Some(real) = Real::new("life") else { return };
    real.fs.create(&real.path).unwrap();
    let mut one = real.sleeper();
    let child = format!("{}/child", real.path);
    real.fs.create(&child).unwrap();
    let mut two = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
    real.fs.join(&child, i32::try_from(two.id()).unwrap()).unwrap();

    let mut expected = vec![i32::try_from(one.id()).unwrap(), i32::try_from(two.id()).unwrap()];
    expected.sort_unstable();
    assert_eq!(real.fs.procs(&real.path).unwrap(), expected);
    let busy = real.fs.remove(&real.path, Duration::from_millis(5)).unwrap_err();
    assert!(matches!(busy, CgroupError::Busy { .. }), "{busy}");

    real.fs.kill_all(&real.path, BOUND).unwrap();
    one.wait().unwrap();
    two.wait().unwrap();
    real.fs.remove(&real.path, BOUND).unwrap();
    assert!(!real.fs.exists(&real.path).unwrap());
    assert_eq!(real.fs.procs(&real.path).unwrap(), Vec::<i32>::new());
    real.fs.remove(&real.path, BOUND).unwrap();
    real.fs.kill_all(&real.path, BOUND).unwrap();
}

#[test]
fn processes_stand_still_while_frozen() {
    let Some(real) = Real::new("freeze") else { return };
    let mut child = real.sleeper();
    real.fs.freeze(&real.path, BOUND).unwrap();
    // SIGKILL reaches a frozen process only after it was thawed (v1), which kill_all sees to.
    real.fs.kill_all(&real.path, Duration::ZERO).err();
    real.fs.thaw(&real.path).unwrap();
    real.fs.kill_all(&real.path, BOUND).unwrap();
    assert!(!child.wait().unwrap().success());
}

#[test]
fn limits_are_raised_and_lowered_on_this_host() {
    let Some(real) = Real::new("limits") else { return };
    if real.fs.layout().is_v2() {
        eprintln!("skipped: reads v1 files back");
        return;
    }
    let apply = |memory: i64, both: Option<i64>| {
        let r = LinuxResources { memory_limit: Some(memory), memory_swap_limit: both, ..Default::default() };
        real.fs.apply(&real.path, &r).unwrap();
        (real.file("memory", "memory.limit_in_bytes"), real.file("memory", "memory.memsw.limit_in_bytes"))
    };
    const M: i64 = 1 << 20;
    let text = |a: i64, b: i64| (a.to_string(), b.to_string());
    assert_eq!(apply(64 * M, Some(64 * M)), text(64 * M, 64 * M));
    assert_eq!(apply(128 * M, Some(128 * M)), text(128 * M, 128 * M), "raised");
    assert_eq!(apply(32 * M, Some(48 * M)), text(32 * M, 48 * M), "lowered");
    assert_eq!(apply(96 * M, None), text(96 * M, 112 * M), "the swap between them is kept");
    assert_eq!(apply(16 * M, None), text(16 * M, 32 * M));
    assert_eq!(apply(24 * M, Some(26 * M)), text(24 * M, 26 * M), "memory up, both down");
    let unlimited = apply(-1, None);
    assert!(unlimited.0.len() > 15 && unlimited.1.len() > 15, "{unlimited:?}");

    let cpu = LinuxResources {
        cpu_shares: Some(512),
        cpu_period: Some(50_000),
        cpu_quota: Some(25_000),
        cpuset_cpus: Some("0".into()),
        cpuset_mems: Some("0".into()),
        hugepage_limits: vec![crisp_model::resources::HugepageLimit { page_size: "2MB".into(), limit: 0 }],
        ..Default::default()
    };
    real.fs.apply(&real.path, &cpu).unwrap();
    assert_eq!(real.file("cpu", "cpu.shares"), "512");
    assert_eq!(real.file("cpu", "cpu.cfs_period_us"), "50000");
    assert_eq!(real.file("cpu", "cpu.cfs_quota_us"), "25000");
    assert_eq!(real.file("cpuset", "cpuset.cpus"), "0");
    real.fs.apply(&real.path, &LinuxResources { cpu_quota: Some(-1), ..Default::default() }).unwrap();
    assert_eq!(real.file("cpu", "cpu.cfs_quota_us"), "-1");
}

#[test]
fn a_refused_value_says_file_value_and_cause() {
    let Some(real) = Real::new("refused") else { return };
    if real.fs.layout().is_v2() {
        eprintln!("skipped: names a v1 file");
        return;
    }
    let r = LinuxResources { cpuset_cpus: Some("4000".into()), ..Default::default() };
    let text = real.fs.apply(&real.path, &r).unwrap_err().to_string();
    for part in ["cpuset.cpus", "4000", "-refused"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let r = LinuxResources { memory_limit: Some(-1), ..Default::default() };
    assert!(matches!(real.fs.apply("/crisp-test-none/x", &r), Err(CgroupError::NotFound { .. })));
}

#[test]
fn this_hosts_cgroups_are_measured() {
    let Some(real) = Real::new("stats") else { return };
    let mut child = real.sleeper();
    let r = LinuxResources { memory_limit: Some(64 << 20), ..Default::default() };
    real.fs.apply(&real.path, &r).unwrap();
    let stats = real.fs.full_stats(&real.path).unwrap();
    let memory = stats.memory.unwrap();
    assert_eq!(memory.limit, Some(64 << 20));
    assert_eq!(stats.pids.unwrap().current, 1);
    assert!(stats.cpu.is_some());
    assert_eq!(real.fs.oom_kills(&real.path).unwrap(), 0);
    real.fs.kill_all(&real.path, BOUND).unwrap();
    child.wait().unwrap();
    assert!(matches!(real.fs.stats("/crisp-test-none/x"), Err(CgroupError::NotFound { .. })));
}

#[test]
fn limits_hold_on_a_host_with_v2() {
    let Some(real) = Real::new("limits2") else { return };
    if !real.fs.layout().is_v2() {
        eprintln!("skipped: reads v2 files back");
        return;
    }
    let mut child = real.sleeper();
    let mut r = LinuxResources {
        memory_limit: Some(64 << 20),
        memory_swap_limit: Some(96 << 20),
        cpu_shares: Some(512),
        cpu_quota: Some(25_000),
        unified: [
            ("memory.high".to_owned(), "50331648".to_owned()),
            ("pids.max".to_owned(), "55".to_owned()),
        ]
        .into(),
        ..Default::default()
    };
    real.fs.apply(&real.path, &r).unwrap();
    assert_eq!(real.file("memory", "memory.max"), (64 << 20).to_string());
    assert_eq!(real.file("memory", "memory.high"), "50331648");
    assert_eq!(real.file("cpu", "cpu.max"), "25000 100000");
    assert_eq!(real.file("cpu", "cpu.weight"), cpu_weight(512).to_string());
    assert_eq!(real.file("pids", "pids.max"), "55");
    r = LinuxResources { memory_limit: Some(32 << 20), cpu_period: Some(50_000), ..Default::default() };
    real.fs.apply(&real.path, &r).unwrap();
    assert_eq!(real.file("memory", "memory.max"), (32 << 20).to_string());
    assert_eq!(real.file("cpu", "cpu.max"), "25000 50000");
    assert_eq!(real.fs.stats_with_tasks(&real.path).unwrap().pids.unwrap().current, 1);
    real.fs.kill_all(&real.path, BOUND).unwrap();
    child.wait().unwrap();
}

#[test]
fn a_process_that_takes_too_much_memory_is_counted() {
    let Some(real) = Real::new("oom") else { return };
    let r = LinuxResources {
        memory_limit: Some(16 << 20),
        memory_swap_limit: Some(16 << 20),
        ..Default::default()
    };
    real.fs.apply(&real.path, &r).unwrap();
    let joins: Vec<String> =
        real.fs.join_files(&real.path).unwrap().iter().map(|f| f.display().to_string()).collect();
    let script = format!("for f in {}; do echo 0 > $f; done; exec tail /dev/zero", joins.join(" "));
    let status = Command::new("/bin/sh").arg("-c").arg(script).status().unwrap();
    assert!(!status.success(), "{status}");
    assert_eq!(real.fs.oom_kills(&real.path).unwrap(), 1);
}

/// A v2 root made of ordinary files.
struct Fake {
    dir: tempfile::TempDir,
    fs: CgroupFs,
}

impl Fake {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let controllers = ["memory", "cpu", "pids", "io", "cpuset"].map(str::to_owned).into();
        let fs = CgroupFs::with_layout(Layout::V2 { root: dir.path().to_owned(), controllers });
        Self { dir, fs }
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(name)).unwrap()
    }
}

#[test]
fn v2_hands_controllers_down() {
    let fake = Fake::new(&[
        ("cgroup.controllers", "cpuset cpu io memory pids\n"),
        ("cgroup.subtree_control", "cpu\n"),
    ]);
    fake.fs.create("/pod").unwrap();
    assert!(fake.dir.path().join("pod").is_dir());
    assert_eq!(
        fake.file("cgroup.subtree_control"),
        "+io",
        "the last of the writes, one for each that lacked"
    );
    assert_eq!(fake.fs.join_files("/pod").unwrap(), [fake.dir.path().join("pod/cgroup.procs")]);
}

const LIMITS: [(&str, &str); 6] = [
    ("c/memory.max", "67108864\n"),
    ("c/memory.current", "1048576\n"),
    ("c/memory.swap.max", "0\n"),
    ("c/cpu.max", "max 100000\n"),
    ("c/cpu.weight", "100\n"),
    ("c/memory.high", "max\n"),
];

#[test]
fn v2_limits() {
    let fake = Fake::new(&LIMITS);
    let r = LinuxResources {
        cpu_quota: Some(20_000),
        cpu_shares: Some(1024),
        memory_limit: Some(32 << 20),
        memory_swap_limit: Some(48 << 20),
        hugepage_limits: vec![crisp_model::resources::HugepageLimit { page_size: "2MB".into(), limit: 0 }],
        unified: [("memory.high".to_owned(), "30000000".to_owned())].into(),
        ..Default::default()
    };
    fake.fs.apply("/c", &r).unwrap();
    assert_eq!(fake.file("c/cpu.max"), "20000 100000");
    assert_eq!(fake.file("c/cpu.weight"), "100");
    assert_eq!(fake.file("c/memory.max"), (32 << 20).to_string());
    assert_eq!(fake.file("c/memory.swap.max"), (16 << 20).to_string());
    assert_eq!(fake.file("c/memory.high"), "30000000");

    let r = LinuxResources {
        cpu_period: Some(50_000),
        memory_limit: Some(-1),
        memory_swap_limit: Some(-1),
        ..Default::default()
    };
    fake.fs.apply("/c", &r).unwrap();
    assert_eq!(fake.file("c/cpu.max"), "20000 50000", "the quota stays");
    assert_eq!((fake.file("c/memory.max"), fake.file("c/memory.swap.max")), ("max".into(), "max".into()));
}

#[test]
fn v2_refuses_a_limit_below_what_is_used() {
    let fake = Fake::new(&LIMITS);
    let r = LinuxResources { memory_limit: Some(1 << 19), ..Default::default() };
    let error = fake.fs.apply("/c", &r).unwrap_err();
    assert!(matches!(error, CgroupError::BelowUsage { limit: 524_288, usage: 1_048_576, .. }), "{error}");
    assert_eq!(fake.file("c/memory.max"), "67108864\n", "it stays");
}

#[test]
fn v2_says_which_controller_is_missing() {
    let fake = Fake::new(&[("c/memory.max", "max\n")]);
    let r = LinuxResources { cpuset_cpus: Some("0".into()), ..Default::default() };
    let error = fake.fs.apply("/c", &r).unwrap_err();
    assert!(matches!(error, CgroupError::NoController { controller: "cpuset", .. }), "{error}");
}

#[test]
fn unified_keys_cannot_leave_the_cgroup_or_move_it() {
    let fake = Fake::new(&LIMITS);
    for key in
        ["../c/memory.max", "cgroup.procs", "cgroup.subtree_control", "/etc/x.y", "memory", ".x", "a/b.c", ""]
    {
        let r = LinuxResources { unified: [(key.to_owned(), "1".to_owned())].into(), ..Default::default() };
        assert!(matches!(fake.fs.apply("/c", &r), Err(CgroupError::InvalidPath { .. })), "{key}");
    }
}

#[test]
fn v2_measures() {
    let fake = Fake::new(&[
        (
            "c/cpu.stat",
            "usage_usec 5000\nuser_usec 3000\nsystem_usec 2000\nnr_periods 7\nnr_throttled 2\nthrottled_usec 9\n",
        ),
        (
            "c/cpu.pressure",
            "some avg10=1.00 avg60=0.00 avg300=0.00 total=11\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n",
        ),
        ("c/memory.current", "1000000\n"),
        (
            "c/memory.stat",
            "anon 300\nfile 500000\nkernel 77\nfile_mapped 5\ninactive_file 400000\nactive_file 100000\npgfault 12\npgmajfault 3\n",
        ),
        ("c/memory.max", "2000000\n"),
        ("c/memory.swap.current", "4096\n"),
        ("c/memory.swap.max", "max\n"),
        ("c/memory.peak", "1500000\n"),
        ("c/memory.events", "low 0\nhigh 0\nmax 6\noom 1\noom_kill 2\n"),
        ("c/pids.current", "4\n"),
        ("c/pids.max", "max\n"),
        ("c/io.stat", "254:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n"),
    ]);
    let stats = fake.fs.full_stats("/c").unwrap();
    let (cpu, memory) = (stats.cpu.unwrap(), stats.memory.unwrap());
    assert_eq!(
        (cpu.usage, cpu.user, cpu.system, cpu.periods, cpu.throttled),
        (5_000_000, 3_000_000, 2_000_000, 7, 9000)
    );
    assert_eq!(cpu.pressure.unwrap().full.total, 5);
    assert_eq!(
        (memory.usage, memory.working_set(), memory.available()),
        (1_000_000, 600_000, Some(1_400_000))
    );
    assert_eq!(
        (memory.swap, memory.swap_limit, memory.max_usage, memory.limit_hits),
        (4096, None, Some(1_500_000), 6)
    );
    assert_eq!(stats.pids, Some(PidStats { current: 4, limit: None }));
    assert_eq!(stats.io.len(), 3);
    assert_eq!(fake.fs.oom_kills("/c").unwrap(), 2);
    assert_eq!(fake.fs.cpu_usage("/c").unwrap(), 5_000_000);
    assert!(matches!(fake.fs.stats("/gone"), Err(CgroupError::NotFound { .. })));
}
