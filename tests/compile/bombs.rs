//! Components that are small, and would take much more to parse, compile or load.

/// An unsigned number in LEB128.
fn leb(mut n: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (n & 0x7f) as u8;
        n >>= 7;
        if n == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

fn section(id: u8, body: &[u8]) -> Vec<u8> {
    [&[id], &leb(body.len())[..], body].concat()
}

/// A vector of `count` equal items.
fn repeated(count: usize, item: &[u8]) -> Vec<u8> {
    [leb(count), item.repeat(count)].concat()
}

/// A function body with these locals (as declared in the binary format) and instructions.
fn body(locals: &[u8], instructions: &[u8]) -> Vec<u8> {
    let body = [locals, instructions, b"\x0b"].concat();
    [leb(body.len()), body].concat()
}

fn module(sections: &[Vec<u8>]) -> Vec<u8> {
    [b"\0asm\x01\0\0\0".to_vec(), sections.concat()].concat()
}

/// A component that contains this core module and does nothing.
fn component(module: &[u8]) -> Vec<u8> {
    [b"\0asm\x0d\0\x01\0".to_vec(), section(1, module)].concat()
}

/// A component with a module with one function of the type `() -> ()`; `types` are more types.
fn function(types: &[&[u8]], body: &[u8]) -> Vec<u8> {
    let types = [leb(types.len() + 1), b"\x60\0\0".to_vec(), types.concat()].concat();
    let code = [leb(1), body.to_vec()].concat();
    component(&module(&[section(1, &types), section(3, b"\x01\0"), section(10, &code)]))
}

/// A module with `count` empty functions.
pub(crate) fn functions(count: usize) -> Vec<u8> {
    let types = section(1, b"\x01\x60\0\0");
    component(&module(&[types, section(3, &repeated(count, b"\0")), section(10, &repeated(count, b"\x02\0\x0b"))]))
}

/// A module with `count` data segments of one byte.
pub(crate) fn data_segments(count: usize) -> Vec<u8> {
    let segments = repeated(count, b"\0\x41\0\x0b\x01x");
    component(&module(&[section(5, b"\x01\0\x01"), section(11, &segments)]))
}

/// A module that imports `count` functions.
pub(crate) fn core_imports(count: usize) -> Vec<u8> {
    let import = |n| format!("\x01a\x05{n:05}\0\0").into_bytes();
    let imports = [leb(count), (0..count).flat_map(import).collect()].concat();
    component(&module(&[section(1, b"\x01\x60\0\0"), section(2, &imports)]))
}

/// A component that exports `count` empty instances.
pub(crate) fn exports(count: usize) -> Vec<u8> {
    let exports: String = (0..count).map(|n| format!("(export \"a:b/c{n}\" (instance $i))")).collect();
    format!("(component (instance $i) {exports})").into_bytes()
}

/// A component that imports `count` instances.
pub(crate) fn imports(count: usize) -> Vec<u8> {
    let imports: String = (0..count).map(|n| format!("(import \"a:b/c{n}\" (instance))")).collect();
    format!("(component {imports})").into_bytes()
}

/// Components of which each instantiates the one before `width` times: `width` to the power of `depth` core instances.
pub(crate) fn nested_components(width: usize, depth: usize) -> Vec<u8> {
    let mut text = "(component (component $c0 (core module $m) (core instance (instantiate $m)))".to_owned();
    for level in 1..=depth {
        let instances = format!("(instance (instantiate $c{}))", level - 1).repeat(width);
        text += &format!("(component $c{level} {instances})");
    }
    text += &format!("(instance (instantiate $c{depth})))");
    text.into_bytes()
}

/// `depth` blocks with `results` results each, and a table of branches to all of them: depth times results values.
pub(crate) fn branch_table(depth: usize, results: usize) -> Vec<u8> {
    let block_type = [b"\x60\0".to_vec(), repeated(results, b"\x7f")].concat();
    let instructions = [
        b"\x02\x01".repeat(depth),
        b"\x41\0".repeat(results + 1),
        b"\x0e".to_vec(),
        leb(depth - 1),
        (0..depth).flat_map(leb).collect(),
        b"\x0b".repeat(depth),
        b"\x1a".repeat(results),
    ];
    function(&[&block_type], &body(b"\0", &instructions.concat()))
}

/// `depth` nested loops around reads and writes of `locals` locals: depth times locals values.
pub(crate) fn locals_and_loops(locals: usize, depth: usize) -> Vec<u8> {
    let declared = [leb(1), leb(locals), b"\x7f".to_vec()].concat();
    // Each local is increased, so that it has another value in each turn of each loop.
    let increase = |n| [b"\x20".to_vec(), leb(n), b"\x41\x01\x6a\x21".to_vec(), leb(n)].concat();
    let instructions = [
        b"\x03\x40".repeat(depth),
        (0..locals).flat_map(increase).collect(),
        // Each loop repeats while the first local is not zero.
        b"\x20\0\x0d\0\x0b".repeat(depth),
    ];
    function(&[], &body(&declared, &instructions.concat()))
}

/// `count` functions that convert a number `pairs` times to an integer and back: two bytes each, and about a hundred of
/// machine code.
pub(crate) fn conversions(count: usize, pairs: usize) -> Vec<u8> {
    let body = body(b"\0", &[b"\x20\0".to_vec(), b"\xb1\xba".repeat(pairs)].concat());
    let types = section(1, b"\x01\x60\x01\x7c\x01\x7c");
    component(&module(&[types, section(3, &repeated(count, b"\0")), section(10, &repeated(count, &body))]))
}

/// A module with a table of `minimum` elements.
pub(crate) fn table(minimum: usize) -> Vec<u8> {
    format!("(component (core module $m (table {minimum} funcref)) (core instance (instantiate $m)))").into_bytes()
}

/// Instances of a module with a passive segment of `count` elements, which each instance keeps on the host.
pub(crate) fn passive_elements(count: usize, instances: usize) -> Vec<u8> {
    instances_of(&format!("(func) (elem func {})", "0 ".repeat(count)), instances)
}

/// Instances of a module with `count` globals, which each instance keeps on the host.
pub(crate) fn globals(count: usize, instances: usize) -> Vec<u8> {
    instances_of(&"(global i32 (i32.const 0))".repeat(count), instances)
}

fn instances_of(module: &str, count: usize) -> Vec<u8> {
    let instances = "(core instance (instantiate $m))".repeat(count);
    format!("(component (core module $m {module}) {instances})").into_bytes()
}

/// A chain of types of which each has twice the size of the one before.
pub(crate) fn doubling_types(depth: usize) -> Vec<u8> {
    let types: String = (1..=depth).map(|n| format!("(type $t{n} (tuple $t{0} $t{0}))", n - 1)).collect();
    let import = format!("(import \"f\" (func (param \"a\" $t{depth})))");
    format!("(component (type $t0 (tuple u8)) {types} {import})").into_bytes()
}

/// Modules and components nested `depth` deep, each in a section of the one around it.
pub(crate) fn deep_nesting(depth: usize) -> Vec<u8> {
    let header = b"\0asm\x0d\0\x01\0";
    (0..depth).fold(header.to_vec(), |inner, _| [&header[..], &section(4, &inner)].concat())
}

/// Bytes that only look like a component.
pub(crate) fn random(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    b"\0asm\x0d\0\x01\0".iter().copied().chain((0..length).map(|_| next())).collect()
}
