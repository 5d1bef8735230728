//! Roles that find each other, that take one scan after the other, that say how they are; commands of
//! the user's own, and whose the written files are.

mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use support::{Desk, Role, free};

fn scan(desk: &Desk, name: &str, frames: u32) {
    desk.moonflower(name, frames, "shape = 48\nraw_shape = [64, 60]\nsave = 'append'", "batch = 3");
}

fn alone(desk: &Desk, name: &str) {
    desk.run(&format!("run {name}.toml --quiet --set data.dfile={name}.alone.ptyd")).must(0, &[]);
}

fn equal(desk: &Desk, name: &str) {
    desk.assert_equal(&format!("{name}.alone.ptyd"), &format!("{name}.ptyd"));
}

#[test]
fn roles_find_each_other_in_a_folder_or_at_a_list() {
    let desk = Desk::new();
    scan(&desk, "met", 60);
    alone(&desk, "met");
    for place in ["meet".to_owned(), format!("tcp://127.0.0.1:{}", free("127.0.0.1").port())] {
        // The order of starting does not matter.
        let roles = [
            desk.start("worker", &format!("worker --rendezvous {place}")),
            desk.start("sink", &format!("sink --rendezvous {place}")),
            desk.start(
                "producer",
                &format!("producer met.toml --quiet --force --rendezvous {place}"),
            ),
        ];
        for role in roles {
            role.end().must(0, &[]);
        }
        equal(&desk, "met");
    }
    assert_eq!(desk.names("meet"), ["meet"]);
    let left = std::fs::read_dir(desk.at("meet")).expect("the folder").count();
    assert_eq!(left, 0, "nobody is there any more");
    let said = desk.run("worker --rendezvous nowhere --peer-timeout 0.5");
    said.must(4, &["no producer has told its address in 'nowhere'"]);
    desk.run("sink --rendezvous ipc://x").must(2, &["neither a folder nor tcp://"]);
}

#[test]
fn a_producer_that_is_killed_is_found_again() {
    let desk = Desk::new();
    desk.moonflower(
        "again",
        200,
        "shape = 128\nsave = 'link'",
        "batch = 1\ncompression = 'gzip:9'",
    );
    alone(&desk, "again");
    let line = "producer again.toml --quiet --rendezvous meet";
    let producer = desk.start("producer", line);
    let others = [
        desk.start("worker", "worker --rendezvous meet"),
        desk.start("sink", "sink --rendezvous meet"),
    ];
    desk.wait_for("again.ptyd");
    producer.signal("KILL");
    producer.end();
    let producer = desk.start("producer2", line);
    for role in others.into_iter().chain([producer]) {
        role.end().must(0, &[]);
    }
    equal(&desk, "again");
}

#[test]
fn a_pool_serves_two_producers_and_one_scan_after_the_other() {
    let desk = Desk::new();
    std::fs::create_dir(desk.at("watched")).expect("a folder");
    for (name, frames) in [("a1", 40), ("a2", 30), ("b1", 50)] {
        scan(&desk, name, frames);
        alone(&desk, name);
    }
    let pool = desk.start("pool", "worker --serve --threads 2 --rendezvous a --rendezvous b");
    let sinks = [
        desk.start("sink.a", "sink --serve --rendezvous a"),
        desk.start("sink.b", "sink --serve --rendezvous b"),
    ];
    let watching =
        desk.start("watching", "producer --watch watched --settle 0.3 --quiet --rendezvous a");
    let appear = |name: &str| {
        let from = desk.at(&format!("{name}.toml"));
        std::fs::copy(from, desk.at(&format!("watched/{name}.toml"))).expect("a copy");
    };
    appear("a1");
    let other = desk.start("other", "producer b1.toml --quiet --rendezvous b");
    desk.wait_for("a1.ptyd.report.json");
    appear("a2");
    desk.wait_for("a2.ptyd.report.json");
    other.end().must(0, &[]);
    for name in ["a1", "a2", "b1"] {
        equal(&desk, name);
    }
    // Roles that serve end when they are asked to.
    for role in sinks.into_iter().chain([pool, watching]) {
        role.signal("TERM");
        role.end().must(0, &[]);
    }
    let list = std::fs::read_to_string(desk.at("watched/.ptystream-prepared")).expect("a list");
    let names: Vec<&str> = list.lines().filter_map(|l| l.rsplit(' ').next()).collect();
    assert_eq!(names, ["a1.toml", "a2.toml"]);
    assert!(list.lines().all(|l| l.starts_with("0 ")), "{list}");
}

#[test]
fn raw_files_that_appear_are_prepared_by_a_configuration() {
    let desk = Desk::new();
    std::fs::create_dir(desk.at("raw")).expect("a folder");
    scan(&desk, "template", 20);
    let watching = desk.start(
        "watching",
        "run template.toml --quiet --watch raw --match *.dat --settle 0.2 --set data.dfile={stem}.ptyd \
         --set data.label={stem} --health h.json",
    );
    for name in ["one", "two"] {
        std::fs::write(desk.at(&format!("raw/{name}.dat")), name).expect("a file");
        desk.wait_for(&format!("{name}.ptyd.report.json"));
    }
    // Between two scans it does nothing, and lives all the same.
    std::thread::sleep(std::time::Duration::from_millis(6500));
    let said = desk.run("health h.json --max-age 5");
    assert_eq!(said.code, 0, "{said:?}");
    watching.signal("TERM");
    watching.end().must(0, &[]);
    desk.run("inspect two.ptyd").must(0, &[]);
    desk.run("run template.toml --watch nowhere").must(2, &["'nowhere' is no folder"]);
    desk.run("run template.toml --watch raw --report x.json").must(2, &["--watch", "--report"]);
}

#[test]
fn commands_of_the_users_own_are_run() {
    let desk = Desk::new();
    scan(&desk, "hooked", 40);
    let note = |name: &str| {
        format!("sh -c 'echo $PTYSTREAM_STATUS $PTYSTREAM_GAPS $PTYSTREAM_FILE >> {name}'")
    };
    let text = std::fs::read_to_string(desk.at("hooked.toml")).expect("the scan");
    let hooks =
        format!("on_first_chunk = \"{}\"\non_done = \"{}\"\n", note("first.txt"), note("done.txt"));
    desk.write("hooked.toml", &(text + &hooks));
    desk.run("run hooked.toml --quiet").must(0, &[]);
    let file = desk.at("hooked.ptyd");
    let read = |name: &str| std::fs::read_to_string(desk.at(name)).expect("the note of a command");
    assert_eq!(read("first.txt"), format!("running 0 {}\n", file.display()));
    assert_eq!(read("done.txt"), format!("complete 0 {}\n", file.display()));
    // A command that fails is said and costs nothing.
    let said = desk.run("run hooked.toml --quiet --force --set pipeline.on_done=false");
    said.must(0, &["pipeline.on_done ended with exit status: 1"]);
}

#[test]
fn files_are_for_whom_they_are_said_to_be() {
    let desk = Desk::new();
    scan(&desk, "owned", 20);
    let own = std::fs::metadata(desk.path()).expect("the folder").gid();
    desk.run(&format!("run owned.toml --quiet --umask 027 --group {own}")).must(0, &[]);
    for name in ["owned.ptyd", "owned.ptyd.report.json"] {
        let meta = std::fs::metadata(desk.at(name)).expect(name);
        assert_eq!(meta.permissions().mode() & 0o777, 0o640, "{name}");
        assert_eq!(meta.gid(), own, "{name}");
    }
    desk.run("run owned.toml --umask 9").must(2, &["three octal digits"]);
    desk.run("run owned.toml --group nobody-of-that-name").must(2, &["--group", "getent"]);
}

#[test]
fn a_role_says_that_it_lives() {
    let desk = Desk::new();
    desk.run("health h.json").must(1, &[]);
    desk.run("health").must(2, &["PTYSTREAM_HEALTH"]);
    let worker: Role = desk.start(
        "worker",
        &format!("worker --health h.json --producer {} --sink {}", desk.ipc("p"), desk.ipc("s")),
    );
    desk.wait_for("h.json");
    let said = desk.run("health h.json");
    said.must(0, &[]);
    assert!(said.out.contains("worker") && said.out.contains("lives"), "{said:?}");
    // One that is stopped writes nothing.
    worker.signal("STOP");
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let said = desk.run("health h.json --max-age 1");
    said.must(1, &[]);
    assert!(said.out.contains("has written nothing for"), "{said:?}");
    worker.signal("CONT");
    worker.signal("TERM");
    worker.end();
    assert!(!desk.at("h.json").exists());
}
