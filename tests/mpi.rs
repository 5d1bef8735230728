//! Scans over MPI ranks, with the real `mpirun`: equal files however many there are and whatever each
//! of them is, ranks that are killed, and faults that end all of them.

#[path = "support/mpirun.rs"]
mod mpirun;
mod support;

use support::{Desk, Role};

/// Starts a command under mpirun; what follows `:` is another program of the same job.
fn mpirun(desk: &Desk, name: &str, parts: &[(usize, &str)]) -> Role {
    let program = env!("CARGO_BIN_EXE_ptystream");
    let mut words = vec!["env".to_owned()];
    words.extend(mpirun::ENVIRONMENT.iter().map(|(name, value)| format!("{name}={value}")));
    // After a fault mpirun waits as long as this, always; after that it kills.
    words.extend(["OMPI_MCA_odls_base_sigkill_timeout=3".to_owned(), "mpirun".to_owned()]);
    for (i, (ranks, line)) in parts.iter().enumerate() {
        if i > 0 {
            words.push(":".into());
        }
        words.extend(["-n".into(), ranks.to_string(), program.to_owned()]);
        if i + 1 < parts.len() {
            words.extend(line.split_whitespace().map(str::to_owned));
        }
    }
    // The last program and its words are added by the desk.
    words.pop();
    let by: Vec<&str> = words.iter().map(String::as_str).collect();
    desk.start_within(&by, name, parts.last().expect("at least one").1)
}

/// A scan that every worker has a part of, however late it comes.
fn scan(desk: &Desk, name: &str, save: &str, parallel: &str) {
    scan_of(desk, name, save, parallel, "");
}

fn scan_of(desk: &Desk, name: &str, save: &str, parallel: &str, pipeline: &str) {
    let data = format!(
        "shape = 48\nraw_shape = [64, 60]\nauto_center = true\nrebin = 2\norientation = 3\n\
         save = '{save}'\nload_parallel = '{parallel}'"
    );
    desk.moonflower(name, 100, &data, &format!("batch = 3\npolicy = 'static'\n{pipeline}"));
}

/// A scan that is long enough to be met in its midst.
fn long(desk: &Desk, name: &str, save: &str) {
    let data = format!("shape = 256\nsave = '{save}'");
    desk.moonflower(name, 300, &data, "compression = 'gzip:9'\nbatch = 1");
}

/// Returns the processes that run the program below a starter, lowest first.
fn ranks_of(starter: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut parents = vec![starter];
    while let Some(parent) = parents.pop() {
        let path = format!("/proc/{parent}/task/{parent}/children");
        for child in std::fs::read_to_string(path).unwrap_or_default().split_whitespace() {
            let child: u32 = child.parse().expect("a number of a process");
            parents.push(child);
            let name = std::fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
            if name.trim() == "ptystream" {
                found.push(child);
            }
        }
    }
    found.sort_unstable();
    found
}

#[test]
fn files_are_equal_on_one_to_four_ranks() {
    let desk = Desk::new();
    for (ranks, save, parallel) in
        [(1, "append", "data"), (2, "link", "None"), (3, "merge", "data"), (4, "append", "all")]
    {
        let name = format!("ranks{ranks}");
        scan(&desk, &name, save, parallel);
        let wanted = format!("alone{ranks}.ptyd");
        desk.run(&format!("run {name}.toml --quiet --set data.dfile={wanted}")).must(0, &[]);
        let said = mpirun(&desk, &name, &[(ranks, &format!("run {name}.toml --quiet"))]).end();
        said.must(0, &[]);
        desk.assert_equal(&wanted, &format!("{name}.ptyd"));
        assert_eq!(
            said.out.matches("frames       100").count(),
            1,
            "one rank reports: {}",
            said.out
        );
        let report = desk.report(&format!("{name}.ptyd.report.json"));
        let workers = report["workers"].as_array().expect("a list of workers").len();
        assert_eq!(workers, if ranks == 1 { workers } else { ranks - 1 }, "{report}");
    }
}

#[test]
fn roles_are_placed_as_the_user_says() {
    let desk = Desk::new();
    scan(&desk, "placed", "merge", "common");
    desk.run("run placed.toml --quiet --set data.dfile=alone.ptyd").must(0, &[]);
    // The producer need not be rank 0.
    for (n, order) in ["pws", "wsp", "spw"].into_iter().enumerate() {
        let parts: Vec<(usize, &str)> = order
            .chars()
            .map(|role| match role {
                'p' => (1, "producer placed.toml --quiet --force"),
                'w' => (2, "worker"),
                _ => (1, "sink"),
            })
            .collect();
        mpirun(&desk, &format!("placed{n}"), &parts).end().must(0, &[]);
        desk.assert_equal("alone.ptyd", "placed.ptyd");
    }
}

#[test]
fn a_pool_under_mpirun_talks_to_roles_that_are_elsewhere() {
    let desk = Desk::new();
    scan_of(&desk, "pool", "append", "data", "workers = 3");
    desk.run("run pool.toml --quiet --set data.dfile=alone.ptyd").must(0, &[]);
    let (p, s) = (desk.ipc("p"), desk.ipc("s"));
    let (producer, _, sink) = desk.roles("pool", &[]);
    let pool = mpirun(&desk, "pool", &[(3, &format!("worker --producer {p} --sink {s}"))]);
    for role in [producer, sink, pool] {
        role.end().must(0, &[]);
    }
    desk.assert_equal("alone.ptyd", "pool.ptyd");
    let report = desk.report("pool.ptyd.report.json");
    assert_eq!(report["workers"].as_array().map(Vec::len), Some(3), "{report}");
}

#[test]
fn one_scan_follows_another() {
    let desk = Desk::new();
    scan(&desk, "many", "append", "data");
    desk.run("run many.toml --quiet --set data.dfile=alone.ptyd").must(0, &[]);
    let line = "run many.toml --quiet --scan 4-6 --set data.dfile=many{scan}.ptyd";
    mpirun(&desk, "many", &[(3, line)]).end().must(0, &[]);
    for number in 4..=6 {
        desk.assert_equal("alone.ptyd", &format!("many{number}.ptyd"));
    }
}

#[test]
fn a_rank_that_is_killed_ends_the_job_and_the_same_command_goes_on() {
    let desk = Desk::new();
    long(&desk, "alone", "link");
    desk.run("run alone.toml --quiet").must(0, &[]);
    for (n, save) in [(0, "link"), (1, "append")] {
        let name = format!("killed{n}");
        long(&desk, &name, save);
        let line = format!("run {name}.toml --quiet --set pipeline.live=true");
        let job = mpirun(&desk, &format!("{name}.first"), &[(3, &line)]);
        desk.wait_for(&format!("{name}.ptyd"));
        // Once the master, once a worker.
        let ranks = ranks_of(job.id());
        assert_eq!(ranks.len(), 3, "{ranks:?}: {}", job.said());
        let killed =
            std::process::Command::new("kill").arg("-KILL").arg(ranks[n].to_string()).status();
        assert!(killed.expect("kill starts").success());
        let said = job.end();
        assert_ne!(said.code, 0, "{said:?}");
        assert!(ranks.iter().all(|id| !std::path::Path::new(&format!("/proc/{id}/exe")).exists()));
        let said = mpirun(&desk, &format!("{name}.second"), &[(3, &line)]).end();
        said.must(0, &[]);
        let report = desk.report(&format!("{name}.ptyd.report.json"));
        assert_eq!(report["frames"]["written"], 300, "{report}");
        let alone = format!("alone{n}.ptyd");
        if save == "link" {
            desk.assert_equal("alone.ptyd", &format!("{name}.ptyd"));
        } else {
            desk.run(&format!("run {name}.toml --quiet --set data.dfile={alone}")).must(0, &[]);
            desk.assert_equal(&alone, &format!("{name}.ptyd"));
        }
    }
}

#[test]
fn a_signal_to_mpirun_leaves_a_file_that_the_same_command_completes() {
    let desk = Desk::new();
    long(&desk, "asked", "link");
    desk.run("run asked.toml --quiet --set data.dfile=alone.ptyd").must(0, &[]);
    let job = mpirun(&desk, "asked.first", &[(3, "run asked.toml --quiet")]);
    desk.wait_for("asked.ptyd");
    let starter = job.id();
    job.signal("TERM");
    let said = job.end();
    assert_ne!(said.code, 0, "{said:?}");
    assert!(ranks_of(starter).is_empty());
    desk.run("inspect asked.ptyd").must(0, &[]);
    mpirun(&desk, "asked.second", &[(3, "run asked.toml --quiet")]).end().must(0, &[]);
    desk.assert_equal("alone.ptyd", "asked.ptyd");
}

#[test]
fn what_is_wrong_is_said_once_and_ends_all_ranks() {
    let desk = Desk::new();
    scan(&desk, "wrong", "append", "data");
    let said = mpirun(&desk, "config", &[(3, "run wrong.toml --set data.rebun=2")]).end();
    assert_eq!(said.code, 2, "{said:?}");
    assert_eq!(said.err.matches("rebun").count(), 1, "{said:?}");
    let said =
        mpirun(&desk, "folder", &[(3, "run wrong.toml --set data.dfile=/proc/no.ptyd")]).end();
    assert_eq!(said.code, 6, "{said:?}");
    let said = mpirun(&desk, "nobody", &[(2, "worker")]).end();
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.err.contains("0 producers and 0 sinks"), "{said:?}");
    let parts = [(2, "producer wrong.toml"), (1, "sink")];
    let said = mpirun(&desk, "twice", &parts).end();
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.err.contains("2 producers and 1 sinks"), "{said:?}");
}
