use super::*;

fn filter(include: &[&str], exclude: &[&str]) -> Filter {
    let owned = |globs: &[&str]| globs.iter().map(|glob| (*glob).to_owned()).collect::<Vec<_>>();
    let folders: Vec<String> = include.iter().flat_map(|glob| folders_of(glob)).collect();
    Filter {
        include: set(&owned(include)).unwrap(),
        include_folders: set(&folders).unwrap(),
        exclude: set(&owned(exclude)).unwrap(),
    }
}

#[test]
fn only_folders_that_can_contain_an_included_file_are_entered() {
    let entered = [
        ("*.csv", "", true),
        ("*.csv", "sub", false),
        ("**/*.csv", "sub/deep", true),
        ("**", "sub/deep", true),
        ("**/*", "sub", true),
        ("in/*.csv", "in", true),
        ("in/*.csv", "in/deep", false),
        ("in/*.csv", "out", false),
        ("in/*/a.csv", "in/any", true),
        ("in/*/a.csv", "in", true),
        ("in/**/a.csv", "in", true),
        ("in/**/a.csv", "in/deep/er", true),
        ("in/**/a.csv", "out", false),
        ("i?/a", "in", true),
        ("i?/a", "out", false),
        // Globs with braces or brackets are not analysed, so every folder is entered.
        ("{a/b,c}/d", "e", true),
        ("[a/]b", "e", true),
    ];
    for (include, folder, is_entered) in entered {
        let filter = filter(&[include], &[]);
        assert_eq!(filter.enters(Path::new(folder)), is_entered, "{include} {folder}");
    }
    assert!(!filter(&["**/*"], &["lost+found"]).enters(Path::new("lost+found")));
    assert!(!filter(&["**/*"], &["skip"]).enters(Path::new("skip/deep")));
}

#[test]
fn every_folder_of_an_included_file_is_entered() {
    let globs = ["**/*.csv", "a/**/b/*.csv", "a/*/c/**", "**", "*/*", "a/b/c/d.csv", "{a,b/c}/**", "a/**", "**/b/**"];
    let files = ["d.csv", "a/b/c/d.csv", "a/x/c/d.csv", "a/x/y/b/d.csv", "b/c/e", "x/b/y/z"];
    let mut included = 0;
    for glob in globs {
        let filter = filter(&[glob], &[]);
        for file in files.map(Path::new).into_iter().filter(|file| filter.includes(file)) {
            included += 1;
            for folder in file.ancestors().skip(1) {
                assert!(filter.enters(folder), "{glob}: {} of {}", folder.display(), file.display());
            }
        }
    }
    assert!(included > 20, "{included}");
}

#[test]
fn long_and_deep_paths_are_refused() {
    let path = |parts: usize, bytes: usize| std::path::PathBuf::from(vec!["a".repeat(bytes); parts].join("/"));
    assert_eq!(refusal(&path(DEPTH_MAX + 1, 1)), None);
    assert!(refusal(&path(DEPTH_MAX + 2, 1)).unwrap().contains("128 folders"));
    assert_eq!(refusal(&path(16, 255)), None);
    assert!(refusal(&path(17, 255)).unwrap().contains("4095 bytes"));
}
