use std::{fs, io::Read, thread};

use crisp_model::seccomp::Argument;
use crisp_spec::seccomp::{Machine, default_profile};
use nix::errno::Errno;

use super::*;
use crate::seccomp_load;

fn bytes(program: &Program) -> Vec<u8> {
    let mut all = Vec::new();
    File::from(program.open().unwrap()).read_to_end(&mut all).unwrap();
    all
}

/// Runs `check` in a thread of its own under the filter; a filter holds for the thread that loads it.
fn under<T: Send + 'static>(filter: &Filter, check: impl FnOnce() -> T + Send + 'static) -> T {
    let program = bytes(&compile(filter).unwrap());
    let confined = thread::spawn(move || {
        nix::sys::prctl::set_no_new_privs().unwrap();
        seccomp_load::load(&program).unwrap();
        check()
    });
    confined.join().unwrap()
}

fn one(name: &str, errno: u16, args: Vec<Argument>) -> Filter {
    let rule = Rule { names: vec![name.into()], action: Action::Errno, errno_ret: Some(errno), args };
    Filter {
        default_action: Action::Allow,
        default_errno_ret: None,
        architectures: vec![],
        flags: vec![],
        syscalls: vec![rule],
    }
}

fn default_filter(capabilities: &[&str]) -> Filter {
    let capabilities: Vec<String> = capabilities.iter().map(|c| (*c).to_owned()).collect();
    default_profile().resolve(&capabilities, &Machine::native((6, 1)))
}

#[test]
fn a_rule_holds_and_others_are_free() {
    let error = under(&one("mkdirat", 95, vec![]), || {
        nix::sys::stat::mkdirat(None, "/tmp/never-made", nix::sys::stat::Mode::empty()).unwrap_err()
    });
    assert_eq!(error, Errno::EOPNOTSUPP);
    assert!(under(&one("mkdirat", 95, vec![]), || fs::read_dir("/").is_ok()));
}

#[test]
fn conditions_on_arguments() {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let arg = |index, value, op| Argument { index, value, value_two: 0, op };
    let open = |family| socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).err();
    // Several on one argument are alternatives.
    let either =
        vec![arg(0, libc::AF_INET as u64, Compare::Equal), arg(0, libc::AF_INET6 as u64, Compare::Equal)];
    let answers = under(&one("socket", 97, either), move || {
        [open(AddressFamily::Inet), open(AddressFamily::Inet6), open(AddressFamily::Unix)]
    });
    assert_eq!(answers, [Some(Errno::EAFNOSUPPORT), Some(Errno::EAFNOSUPPORT), None]);
    // On several arguments all must hold.
    let both = vec![arg(0, libc::AF_UNIX as u64, Compare::Equal), arg(2, 1, Compare::GreaterOrEqual)];
    assert_eq!(under(&one("socket", 97, both), move || open(AddressFamily::Unix)), None);
}

#[test]
fn the_default_profile_holds() {
    use nix::{
        mount::MsFlags,
        sched::{CloneFlags, unshare},
    };
    let (answers, spawned) = under(&default_filter(&[]), || {
        // A target that is not there: were the filter missing, nothing would be mounted either.
        let mount = || {
            let none = None::<&str>;
            nix::mount::mount(none, "never/there", none, MsFlags::MS_PRIVATE, none)
        };
        let answers = [
            unshare(CloneFlags::CLONE_NEWUTS).err(),
            mount().err(),
            nix::unistd::chroot("/").err(),
            fs::metadata("/").err().map(|_| Errno::EIO),
        ];
        // clone3 is hidden, clone without namespaces is not: libc falls back.
        (answers, thread::spawn(|| 7).join().unwrap())
    });
    let eperm = Some(Errno::EPERM);
    assert_eq!(answers, [eperm, eperm, eperm, None]);
    assert_eq!(spawned, 7);
    // With the capability unshare is let through (and works, or fails for want of the real capability).
    let free = under(&default_filter(&["CAP_SYS_ADMIN"]), || unshare(CloneFlags::empty()).err());
    assert_eq!(free, None);
}

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
/// `AUDIT_ARCH_X86_64`, `AUDIT_ARCH_I386`
const X86_64: u32 = 0xc000_003e;
#[cfg(target_arch = "x86_64")]
const I386: u32 = 0x4000_0003;

/// What the kernel would answer: a machine for the instructions that libseccomp writes, over `struct seccomp_data`.
fn judge(program: &[u8], arch: u32, call: i32, args: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(call.to_ne_bytes());
    data.extend(arch.to_ne_bytes());
    data.extend([0; 8]);
    args.iter().for_each(|arg| data.extend(arg.to_ne_bytes()));
    let (mut at, mut a) = (0, 0u32);
    loop {
        let i: &[u8; 8] = program[at * 8..][..8].try_into().unwrap();
        let code = u16::from_ne_bytes([i[0], i[1]]);
        let k = u32::from_ne_bytes([i[4], i[5], i[6], i[7]]);
        let jump = |yes: bool| usize::from(if yes { i[2] } else { i[3] });
        at += 1 + match code {
            0x20 => {
                a = u32::from_ne_bytes(data[k as usize..][..4].try_into().unwrap());
                0
            }
            0x54 => {
                a &= k;
                0
            }
            0x05 => k as usize,
            0x15 => jump(a == k),
            0x25 => jump(a > k),
            0x35 => jump(a >= k),
            0x06 => return k,
            other => panic!("instruction {other:#x}"),
        };
    }
}

#[cfg(target_arch = "x86_64")]
fn number(name: &str, arch: ScmpArch) -> i32 {
    ScmpSyscall::from_name_by_arch(name, arch).unwrap().as_raw_syscall()
}

#[test]
#[cfg(target_arch = "x86_64")]
fn every_rule_of_the_default_profile_is_in_its_program() {
    for capabilities in [&[][..], &["CAP_SYS_ADMIN", "CAP_BPF"], &["CAP_SYS_PTRACE"]] {
        let filter = default_filter(capabilities);
        let program = bytes(&compile(&filter).unwrap());
        let mut judged = 0;
        for rule in filter.syscalls.iter().filter(|rule| rule.args.is_empty()) {
            let expected = match rule.action {
                Action::Allow => ALLOW,
                _ => ERRNO | u32::from(rule.errno_ret.unwrap()),
            };
            for name in &rule.names {
                for (arch, token) in [(ScmpArch::X8664, X86_64), (ScmpArch::X86, I386)] {
                    let Ok(call) = ScmpSyscall::from_name_by_arch(name, arch) else { continue };
                    // Negative: the architecture does not have it.
                    if call.as_raw_syscall() >= 0 {
                        let answer = judge(&program, token, call.as_raw_syscall(), [0; 6]);
                        assert_eq!(answer, expected, "{name} on {arch:?} with {capabilities:?}");
                        judged += 1;
                    }
                }
            }
        }
        assert!(judged > 600, "{judged}");
        assert_eq!(judge(&program, X86_64, 9999, [0; 6]), ERRNO | 38);
        // Another architecture's numbering: the thread is killed.
        assert_eq!(judge(&program, 0x1234, 0, [0; 6]), 0);
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn conditions_of_the_default_profile() {
    let program = bytes(&compile(&default_filter(&[])).unwrap());
    let call = |name, first| judge(&program, X86_64, number(name, ScmpArch::X8664), [first, 0, 0, 0, 0, 0]);
    assert_eq!(call("clone", 0x11), ALLOW);
    assert_eq!(call("clone", 0x003d_0f00), ALLOW);
    for bit in [17, 25, 26, 27, 28, 29, 30] {
        assert_eq!(call("clone", 1 << bit | 0x11), ERRNO | 1, "bit {bit}");
    }
    for (family, answer) in [
        (1, ALLOW),
        (2, ALLOW),
        (10, ALLOW),
        (16, ALLOW),
        (38, ERRNO | 1),
        (39, ALLOW),
        (40, ERRNO | 1),
        (44, ALLOW),
    ] {
        assert_eq!(call("socket", family), answer, "family {family}");
    }
    for (persona, answer) in
        [(0, ALLOW), (8, ALLOW), (0x20000, ALLOW), (0xffff_ffff, ALLOW), (0x40000, ERRNO | 38)]
    {
        assert_eq!(call("personality", persona), answer, "{persona:#x}");
    }
}

#[test]
fn calls_younger_than_the_library_are_not_lost() {
    let program = compile(&default_filter(&[])).unwrap();
    assert!(program.length / INSTRUCTION < MAX_INSTRUCTIONS);
    let raw = bytes(&program);
    let arch = if cfg!(target_arch = "x86_64") { X86_64 } else { 0xc000_00b7 };
    for (name, number) in YOUNG {
        assert!(!program.unknown.iter().any(|unknown| unknown == name), "{name}");
        let rules = default_filter(&[]).syscalls;
        let expected = match rules.iter().find(|rule| rule.names.iter().any(|n| n == name)) {
            Some(rule) if rule.action == Action::Allow => ALLOW,
            Some(_) => ERRNO | 1,
            None => ERRNO | 38,
        };
        assert_eq!(judge(&raw, arch, number, [0; 6]), expected, "{name}");
    }
    assert_eq!(compile(&one("no_such_call", 1, vec![])).unwrap().unknown, ["no_such_call"]);
}

#[test]
fn impossible_rules_are_named() {
    let arg = Argument { index: 6, value: 0, value_two: 0, op: Compare::Equal };
    match compile(&one("mkdir", 1, vec![arg])) {
        Err(SeccompError::Rule { rule, .. }) => assert_eq!(rule, "syscalls[0], mkdir"),
        other => panic!("{other:?}"),
    }
    let filter = Filter { architectures: vec!["SCMP_ARCH_Z80".into()], ..one("mkdir", 1, vec![]) };
    assert!(matches!(compile(&filter), Err(SeccompError::Rule { rule, .. }) if rule == "SCMP_ARCH_Z80"));
}

#[test]
fn the_cache_keeps_the_recent_ones() {
    let cache = SeccompCache::default();
    let first = cache.compile(&one("mkdir", 1, vec![])).unwrap();
    for errno in 2..u16::try_from(KEPT).unwrap() + 1 {
        cache.compile(&one("mkdir", errno, vec![])).unwrap();
    }
    assert!(Arc::ptr_eq(&first, &cache.compile(&one("mkdir", 1, vec![])).unwrap()));
    for errno in 100..100 + u16::try_from(KEPT).unwrap() {
        cache.compile(&one("mkdir", errno, vec![])).unwrap();
    }
    let again = cache.compile(&one("mkdir", 1, vec![])).unwrap();
    assert!(!Arc::ptr_eq(&first, &again));
    assert_eq!(bytes(&first), bytes(&again));
    assert_eq!(cache.slots.lock().unwrap().len(), KEPT);
}

#[test]
fn a_program_is_sealed_and_read_from_its_start_by_everybody() {
    let program = compile(&one("mkdir", 1, vec![])).unwrap();
    assert_eq!(bytes(&program), bytes(&program));
    assert_eq!(bytes(&program).len() as u64, program.length);
    let write =
        fs::OpenOptions::new().write(true).open(format!("/proc/self/fd/{}", program.file.as_raw_fd()));
    let refused = write.and_then(|mut file| io::Write::write_all(&mut file, &[0]));
    assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EPERM));
}
