use super::*;

const COMPONENT: &str = "(component)";

struct Folder {
    dir: tempfile::TempDir,
    cache: Cache,
}

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cache = Self::open(&dir.path().join("a/b"));
        Self { dir, cache }
    }

    fn open(folder: &Path) -> Cache {
        Cache::open(folder.to_owned(), crate::engine::engine(1, 0).unwrap(), Compiler::in_process()).unwrap()
    }

    fn input(&self, text: &str) -> Input {
        let path = self.dir.path().join("component.wat");
        fs::write(&path, text).unwrap();
        Input::read(&path).unwrap().unwrap()
    }

    fn path(&self, extension: &str) -> PathBuf {
        self.cache.path(&self.cache.name(&self.input(COMPONENT)), extension).unwrap()
    }

    fn load(&self) -> Compiled {
        self.cache.load_or_compile(&self.input(COMPONENT), None).unwrap()
    }

    fn is_cached(&self) -> bool {
        let input = self.input(COMPONENT);
        self.cache.cached(&self.cache.name(&input), &input).unwrap().is_some()
    }
}

#[test]
fn a_component_is_compiled_once_and_then_loaded() {
    let folder = Folder::new();
    assert!(!folder.is_cached());
    folder.load();
    assert!(folder.is_cached());
    folder.load();
    assert_eq!(folder.cache.load_counts(), (1, 1));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder.dir.path().join("a/b")), mode(&folder.path("compiled"))), (0o700, 0o600));
    let again = Folder::open(&folder.dir.path().join("a/b"));
    again.load_or_compile(&folder.input(COMPONENT), None).unwrap();
    assert_eq!(again.load_counts(), (1, 0), "the next start finds the compiled component");
    let names = fs::read_dir(folder.dir.path().join("a/b")).unwrap().count();
    assert_eq!(names, 2, "the key and the compiled component");
}

#[test]
fn outdated_components_are_removed_but_for_the_last_few() {
    let folder = Folder::new();
    let load = |n: usize| {
        let compiled = folder.input(&format!("(component $v{n} (core module $m{n} (memory {n})))"));
        folder.cache.load_or_compile(&compiled, None).unwrap();
        let path = folder.cache.path(&folder.cache.name(&compiled), "compiled").unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000 + n as u64);
        File::open(&path).unwrap().set_modified(time).unwrap();
        path
    };
    let paths: Vec<_> = (1..=OUTDATED_MAX + 4).map(load).collect();
    folder.cache.remove_outdated();
    assert!(paths.iter().all(|path| path.exists()), "all components were loaded since the start");
    // A reload loads the first two again.
    load(1);
    load(2);
    folder.cache.remove_outdated();
    let kept: Vec<_> = paths.iter().map(|path| path.exists()).collect();
    assert_eq!(kept, [[true, true, false, false].as_slice(), &[true; OUTDATED_MAX]].concat());
}

#[test]
fn a_cache_without_a_folder_compiles_once_and_writes_nothing() {
    let folder = Folder::new();
    let cache = Cache::in_memory(crate::engine::engine(1, 0).unwrap(), Compiler::in_process()).unwrap();
    for _ in 0..3 {
        cache.load_or_compile(&folder.input(COMPONENT), None).unwrap();
    }
    assert_eq!(cache.load_counts(), (2, 1));
}

#[test]
fn a_torn_or_damaged_file_is_compiled_again_and_never_loaded() {
    let folder = Folder::new();
    folder.load();
    let path = folder.path("compiled");
    let whole = fs::read(&path).unwrap();
    for at in [0, whole.len() / 2, whole.len() - SEAL_BYTES - 1, whole.len() - SEAL_BYTES, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        for bytes in [&damaged[..], &whole[..at]] {
            fs::write(&path, bytes).unwrap();
            assert!(!folder.is_cached(), "byte {at}");
        }
    }
    folder.load();
    assert_eq!(fs::read(&path).unwrap().len(), whole.len());
    assert!(folder.is_cached());
}

#[test]
fn a_file_for_another_component_or_from_another_folder_is_not_loaded() {
    let (folder, other) = (Folder::new(), Folder::new());
    let text = "(component (core module))";
    folder.cache.load_or_compile(&folder.input(text), None).unwrap();
    let another = folder.cache.path(&folder.cache.name(&folder.input(text)), "compiled").unwrap();
    fs::copy(another, folder.path("compiled")).unwrap();
    assert!(!folder.is_cached());
    other.load();
    fs::copy(other.path("compiled"), folder.path("compiled")).unwrap();
    assert!(!folder.is_cached());
}

#[test]
fn something_else_than_a_file_in_the_place_of_a_compiled_component_is_no_error() {
    let folder = Folder::new();
    fs::create_dir(folder.path("compiled")).unwrap();
    folder.load();
    fs::remove_dir(folder.path("compiled")).unwrap();
    folder.load();
    let elsewhere = folder.dir.path().join("elsewhere");
    fs::rename(folder.path("compiled"), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, folder.path("compiled")).unwrap();
    assert!(!folder.is_cached(), "links are not followed");
    folder.load();
    assert!(folder.is_cached());
}

#[test]
fn a_refused_component_is_not_tried_again_until_a_limit_is_raised() {
    let mut folder = Folder::new();
    let name = folder.cache.name(&folder.input(COMPONENT));
    let limits = folder.cache.compiler.limits;
    folder.cache.remember(&name, Record::new(Refusal::Memory(limits.memory), limits));
    let error = folder.cache.load_or_compile(&folder.input(COMPONENT), None).err();
    let Some(CacheError::RefusedBefore { refusal: Refusal::Memory(_), record: Some(record) }) = error else {
        panic!("{error:?}")
    };
    assert_eq!(record, folder.path("refused"));
    assert_eq!(folder.cache.load_counts(), (0, 0));
    folder.cache.compiler.limits.memory += 1;
    folder.load();
    assert_eq!(folder.cache.load_counts(), (0, 1));
}

#[test]
fn unused_files_are_removed_after_a_month_and_one_that_cannot_be_removed_is_no_error() {
    let folder = Folder::new();
    folder.load();
    let long_ago = SystemTime::now() - UNUSED_MAX - Duration::from_secs(60);
    let stuck = folder.dir.path().join("a/b/stuck.compiled");
    // A folder is not removed by the call that removes a file.
    fs::create_dir_all(stuck.join("x")).unwrap();
    let other = folder.dir.path().join("a/b/other");
    fs::write(&other, "stays").unwrap();
    fs::write(folder.path("refused"), "").unwrap();
    for path in [&folder.path("compiled"), &folder.path("refused"), &stuck, &other] {
        File::open(path).unwrap().set_modified(long_ago).unwrap();
    }
    Folder::open(&folder.dir.path().join("a/b"));
    assert!(!folder.path("compiled").exists() && !folder.path("refused").exists());
    assert!(other.exists() && stuck.exists());
}
