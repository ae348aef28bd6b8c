//! Links of the documents lead somewhere.

use xtask::{documents, source};

use crate::none;

#[test]
fn no_document_has_a_dead_relative_link() {
    none(&documents::dead_links(&source::root()).unwrap());
}

#[test]
fn links_in_code_are_not_links() {
    let text = "[a](b.md) `[c](d.md)` [e](f.md#g)\n```\n[h](i.md)\n```\n";
    assert_eq!(documents::links(text), [(1, "b.md".into()), (1, "f.md#g".into())]);
}

#[test]
fn a_dead_link_and_a_missing_heading_are_found() {
    let dir = std::env::temp_dir().join(format!("antipode-links-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("a.md"), "# One thing\n[x](a.md#one-thing) [y](#two) [z](none.md) [w](../../)\n")
        .unwrap();
    let said: Vec<String> = documents::dead_links(&dir).unwrap().iter().map(ToString::to_string).collect();
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!(
        said,
        [
            "a.md:2: `#two`: there is no such heading",
            "a.md:2: `none.md` leads to no file of the project",
            "a.md:2: `../../` leads to no file of the project",
        ]
    );
}

#[test]
fn the_readme_gives_the_two_commands() {
    let readme = std::fs::read_to_string(source::root().join("README.md")).unwrap();
    for command in ["\ncargo run --release -- dev --regions 2", "\nscripts/test"] {
        assert!(readme.contains(command), "README.md lacks `{}`", command.trim());
    }
}
