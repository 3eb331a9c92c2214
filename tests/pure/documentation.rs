//! Everything that the crate exports is shown at work in its documentation.
//!
//! A type, trait, function or constant has an example of its own. A method is called in one that
//! stands with it or with its type, a trait's method in one that stands with the trait. The examples
//! are compiled and run by `cargo test --doc`; here it is only asked whether they are there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::{
    Attribute, Expr, FnArg, ImplItem, Item, Lit, Meta, TraitItem, Type, UseTree, Visibility,
};

#[test]
fn everything_exported_has_an_example() {
    let mut missing = exported();
    assert!(
        missing.len() > 70,
        "the exports were not found: {missing:?}"
    );
    let subjects = subjects(&missing);
    missing.retain(|name| {
        let own = subjects
            .get(name)
            .and_then(|subject| subject.own.as_deref());
        own.is_none_or(str::is_empty)
    });
    assert!(missing.is_empty(), "no example stands with {missing:?}");
}

#[test]
fn every_method_is_called_in_an_example() {
    let exported = exported();
    let mut methods = 0;
    let mut missing = Vec::new();
    for (name, subject) in &subjects(&exported) {
        for method in &subject.methods {
            methods += 1;
            if !method.is_shown(name, &subject.examples) {
                missing.push(format!("{name}::{}", method.name));
            }
        }
    }
    assert!(methods > 150, "the methods were not found: {methods}");
    assert!(missing.is_empty(), "no example calls {missing:?}");
}

#[test]
fn a_long_file_has_its_reason_among_the_decisions() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let decisions = fs::read_to_string(root.join("docs/decisions.md")).unwrap();
    let mut files = Vec::new();
    let mut folders = vec![root.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 100, "the files were not found: {files:?}");
    let too_long = files.iter().filter(|path| {
        let lines = fs::read_to_string(path).unwrap().lines().count();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        lines > 450 && !decisions.contains(&format!("`{}`", name.replace('\\', "/")))
    });
    let too_long: Vec<_> = too_long.collect();
    assert!(
        too_long.is_empty(),
        "split by subject, or give the reason in docs/decisions.md: {too_long:?}"
    );
}

#[test]
fn what_is_not_shown_is_found() {
    let method = |name: &str, has_self| Method {
        name: name.to_owned(),
        has_self,
        is_required: false,
    };
    let shown = "let mut inbox = Inbox::new(1, 8);\ninbox.push(b\"x\", meta);";
    assert!(method("push", true).is_shown("Inbox", shown));
    assert!(method("new", false).is_shown("Inbox", shown));
    assert!(!method("pop", true).is_shown("Inbox", shown));
    assert!(!method("ush", true).is_shown("Inbox", shown));
    assert!(!method("new", false).is_shown("Outbox", shown));
    let docs = "Text.\n```text\na.b()\n```\n```\n# a.hidden();\na.seen();\n```\na.c()";
    assert_eq!(code(docs), "a.seen();\n");
}

/// What the documentation of one exported item says.
#[derive(Default)]
struct Subject {
    /// The code that stands with the item itself, once that was found.
    own: Option<String>,
    /// That, and the code that stands with its methods.
    examples: String,
    methods: Vec<Method>,
}

struct Method {
    name: String,
    has_self: bool,
    /// Whether those who implement a trait write it.
    is_required: bool,
}

impl Method {
    fn is_shown(&self, of: &str, examples: &str) -> bool {
        let name = &self.name;
        let called = self.has_self && has_word(examples, ".", name);
        let implemented = self.is_required && has_word(examples, "fn ", name);
        called || implemented || has_word(examples, &format!("{of}::"), name)
    }
}

/// Whether the name stands there as a whole word after the prefix.
fn has_word(code: &str, prefix: &str, name: &str) -> bool {
    code.match_indices(&format!("{prefix}{name}"))
        .any(|(at, found)| {
            let next = code[at + found.len()..].chars().next();
            next.is_none_or(|next| !next.is_alphanumeric() && next != '_')
        })
}

fn subjects(exported: &BTreeSet<String>) -> BTreeMap<String, Subject> {
    let mut subjects = BTreeMap::<String, Subject>::new();
    for path in files(&source()) {
        for item in parse(&path).items {
            let Some((name, attributes)) = named(&item) else {
                continue;
            };
            if !exported.contains(&name) {
                continue;
            }
            let subject = subjects.entry(name).or_default();
            let own = code(&docs(attributes));
            subject.examples.push_str(&own);
            match &item {
                Item::Impl(block) => {
                    for item in &block.items {
                        if let ImplItem::Fn(method) = item
                            && is_public(&method.vis)
                        {
                            subject.add(&method.sig, &method.attrs, false);
                        }
                    }
                }
                Item::Trait(item) => {
                    subject.own = Some(own);
                    for item in &item.items {
                        if let TraitItem::Fn(method) = item {
                            subject.add(&method.sig, &method.attrs, true);
                        }
                    }
                }
                _ => subject.own = Some(own),
            }
        }
    }
    subjects
}

impl Subject {
    fn add(&mut self, signature: &syn::Signature, attributes: &[Attribute], is_required: bool) {
        self.examples.push_str(&code(&docs(attributes)));
        self.methods.push(Method {
            name: signature.ident.to_string(),
            has_self: matches!(signature.inputs.first(), Some(FnArg::Receiver(_))),
            is_required,
        });
    }
}

/// What an item is about, if it can be exported, or is a type's own `impl` block.
fn named(item: &Item) -> Option<(String, &[Attribute])> {
    let (ident, attributes) = match item {
        // A private item may have the name of an exported one.
        Item::Struct(item) if is_public(&item.vis) => (&item.ident, &item.attrs),
        Item::Enum(item) if is_public(&item.vis) => (&item.ident, &item.attrs),
        Item::Trait(item) if is_public(&item.vis) => (&item.ident, &item.attrs),
        Item::Fn(item) if is_public(&item.vis) => (&item.sig.ident, &item.attrs),
        Item::Const(item) if is_public(&item.vis) => (&item.ident, &item.attrs),
        Item::Impl(block) if block.trait_.is_none() => {
            let Type::Path(path) = &*block.self_ty else {
                return None;
            };
            (&path.path.segments.last()?.ident, &block.attrs)
        }
        _ => return None,
    };
    Some((ident.to_string(), attributes))
}

/// The names of everything public: in the crate's root and in its public modules.
fn exported() -> BTreeSet<String> {
    let root = parse(&source().join("lib.rs"));
    let mut names = Vec::new();
    exports(&root, &source(), &mut names);
    names.into_iter().collect()
}

/// The names that a file exports, and those of the public modules whose files lie in `folder`.
fn exports(file: &syn::File, folder: &Path, names: &mut Vec<String>) {
    for item in &file.items {
        match item {
            Item::Use(item) if is_public(&item.vis) => leaves(&item.tree, names),
            Item::Mod(module) if is_public(&module.vis) && module.content.is_none() => {
                let name = module.ident.to_string();
                let file = parse(&folder.join(&name).with_extension("rs"));
                exports(&file, &folder.join(&name), names);
            }
            Item::Struct(item) if is_public(&item.vis) => names.push(item.ident.to_string()),
            Item::Enum(item) if is_public(&item.vis) => names.push(item.ident.to_string()),
            Item::Trait(item) if is_public(&item.vis) => names.push(item.ident.to_string()),
            Item::Fn(item) if is_public(&item.vis) => names.push(item.sig.ident.to_string()),
            Item::Const(item) if is_public(&item.vis) => names.push(item.ident.to_string()),
            _ => {}
        }
    }
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn leaves(tree: &UseTree, names: &mut Vec<String>) {
    match tree {
        UseTree::Path(path) => leaves(&path.tree, names),
        UseTree::Name(name) => names.push(name.ident.to_string()),
        UseTree::Group(group) => group.items.iter().for_each(|tree| leaves(tree, names)),
        UseTree::Rename(_) | UseTree::Glob(_) => panic!("exports are told by their own names"),
    }
}

fn docs(attributes: &[Attribute]) -> String {
    let mut docs = String::new();
    for attribute in attributes {
        if let Meta::NameValue(meta) = &attribute.meta
            && meta.path.is_ident("doc")
            && let Expr::Lit(literal) = &meta.value
            && let Lit::Str(line) = &literal.lit
        {
            let line = line.value();
            docs.push_str(line.strip_prefix(' ').unwrap_or(&line));
            docs.push('\n');
        }
    }
    docs
}

/// The lines that a reader sees of those blocks which are compiled.
fn code(docs: &str) -> String {
    let mut code = String::new();
    let mut block = None;
    for line in docs.lines() {
        match (line.trim().strip_prefix("```"), block) {
            (Some(tags), None) => {
                let is_rust = tags.is_empty() || tags == "no_run" || tags.starts_with("rust");
                block = Some(is_rust);
            }
            (Some(_), Some(_)) => block = None,
            (None, Some(true)) if !line.trim_start().starts_with("# ") => {
                code.push_str(line);
                code.push('\n');
            }
            _ => {}
        }
    }
    code
}

fn parse(path: &Path) -> syn::File {
    let text = fs::read_to_string(path).unwrap();
    syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}
