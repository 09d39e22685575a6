//! The kept inputs of every fuzz target run as a test: none may panic.

use std::path::Path;

use forebay_wire::fuzz;

type Target = fn(&[u8]);

#[test]
fn no_kept_input_panics() {
    let targets: [(&str, Target); 5] = [
        ("frame", fuzz::frame),
        ("produce", fuzz::produce),
        ("batch", fuzz::batch),
        ("records", fuzz::records),
        ("request_any", fuzz::request_any),
    ];
    for (target, run) in targets {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        let mut files: Vec<_> = std::fs::read_dir(&folder)
            .expect("every target has a corpus")
            .map(|entry| entry.expect("a readable folder").path())
            .collect();
        files.sort();
        assert!(files.len() >= 5, "{} has its inputs", folder.display());
        for file in files {
            let input = std::fs::read(&file).expect("a readable file");
            println!("{}", file.display());
            run(&input);
        }
    }
}
