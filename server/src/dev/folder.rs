//! The data folder of `antipode dev`. It is looked at before anything is written: a folder that holds something else, a
//! damaged file, a region whose file has gone, or a folder that another process uses is refused, and stays as it was.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

use antipode_config::REGION_NAMES;

/// Marks a folder as ours, names the regions that live in it, and holds the lock of the process that uses it. It is
/// rewritten in place: were it replaced, two processes could hold locks on two files of that name.
const MARKER: &str = "antipode.lock";
/// First line of the marker.
const MARKER_HEAD: &str = "antipode data folder, format 1\n";
/// How each further line begins.
const MARKER_REGION: &str = "region ";

/// Why a folder is not used. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a folder.
    #[error("--data-dir: {} is not a folder", .0.display())]
    NotAFolder(PathBuf),
    /// Somebody else's.
    #[error("--data-dir: {} is not a data folder of Antipode (it holds {found:?}); choose another or an empty one", folder.display())]
    Foreign {
        /// Folder.
        folder: PathBuf,
        /// One thing in it.
        found: String,
    },
    /// A file that is not what its name says.
    #[error("--data-dir: {} is damaged: {why}", file.display())]
    Damaged {
        /// File.
        file: PathBuf,
        /// In which way.
        why: String,
    },
    /// Another process works in it.
    #[error("--data-dir: {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The system refused.
    #[error("--data-dir: {}: {}", path.display(), crate::process::plain(&why.to_string()))]
    Io {
        /// Where.
        path: PathBuf,
        /// The system's words.
        why: io::Error,
    },
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
    move |why| Error::Io { path: path.to_path_buf(), why }
}

/// A folder that was looked at and may be used.
#[derive(Debug)]
pub struct Checked {
    folder: PathBuf,
    /// Held when the folder exists; taken when it is made.
    lock: Option<File>,
    /// Regions that already have a file.
    regions: Vec<String>,
    /// Regions that the marker names.
    named: Vec<String>,
}

/// A folder in use by this process; another process is refused until this is dropped.
#[derive(Debug)]
pub struct Held {
    _lock: File,
    marker: PathBuf,
    named: Vec<String>,
}

impl Checked {
    /// Looks at a folder, and takes its lock when it has one. Writes nothing.
    ///
    /// # Errors
    /// [`Error`].
    pub fn look(folder: &Path) -> Result<Self, Error> {
        let mut checked =
            Self { folder: folder.to_path_buf(), lock: None, regions: Vec::new(), named: Vec::new() };
        match fs::metadata(folder) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(checked),
            Err(why) => return Err(io_at(folder)(why)),
            Ok(found) if !found.is_dir() => return Err(Error::NotAFolder(folder.to_path_buf())),
            Ok(_) => {}
        }
        let names = names(folder)?;
        let marked = names.iter().any(|name| name == MARKER);
        if marked {
            checked.named = read_marker(&folder.join(MARKER))?;
            checked.lock = Some(lock(folder)?);
        } else if let Some(found) = names.into_iter().next() {
            return Err(Error::Foreign { folder: folder.to_path_buf(), found });
        }
        for region in REGION_NAMES {
            let file = folder.join(format!("{region}.db"));
            if file.exists() {
                checked.regions.push(region.to_string());
            } else if checked.named.iter().any(|named| named == region) {
                // Its peers hold proofs of what it had; an empty one in its place would never get it again.
                let why = "it is missing, and this folder had a region of that name".to_string();
                return Err(Error::Damaged { file, why });
            }
        }
        Ok(checked)
    }

    /// Regions that already have a file here.
    #[must_use]
    pub fn regions(&self) -> &[String] {
        &self.regions
    }

    /// Makes the folder when it is absent, marks it and keeps others out.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::InUse`].
    pub fn hold(self) -> Result<Held, Error> {
        let marker = self.folder.join(MARKER);
        let named = self.named;
        if let Some(lock) = self.lock {
            return Ok(Held { _lock: lock, marker, named });
        }
        fs::create_dir_all(&self.folder).map_err(io_at(&self.folder))?;
        write(&marker, &[]).map_err(io_at(&marker))?;
        Ok(Held { _lock: lock(&self.folder)?, marker, named })
    }
}

impl Held {
    /// Writes down regions whose files are there now: from here on a missing file is damage, not a new region.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remember<'a>(&mut self, regions: impl Iterator<Item = &'a str>) -> Result<(), Error> {
        let new: Vec<String> = regions
            .filter(|region| !self.named.iter().any(|named| named == region))
            .map(str::to_string)
            .collect();
        if !new.is_empty() {
            self.named.extend(new);
            write(&self.marker, &self.named).map_err(io_at(&self.marker))?;
        }
        Ok(())
    }
}

fn write(path: &Path, named: &[String]) -> io::Result<()> {
    let mut text = MARKER_HEAD.to_string();
    for region in named {
        text.extend([MARKER_REGION, region, "\n"]);
    }
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn names(folder: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(io_at(folder))? {
        names.push(entry.map_err(io_at(folder))?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Regions that the marker names.
fn read_marker(path: &Path) -> Result<Vec<String>, Error> {
    let text = fs::read_to_string(path).map_err(io_at(path))?;
    let damaged = |why: String| Error::Damaged { file: path.to_path_buf(), why };
    let Some(lines) = text.strip_prefix(MARKER_HEAD) else {
        // The process that made it ended before the first line was written.
        if MARKER_HEAD.starts_with(&text) {
            return Ok(Vec::new());
        }
        let first = text.lines().next().unwrap_or_default();
        return Err(damaged(match first.strip_prefix("antipode data folder, format ") {
            Some(format) => format!("format {format} is not known to this version"),
            None => "it does not begin as a marker of Antipode does".to_string(),
        }));
    };
    let mut named = Vec::new();
    for line in lines.split_inclusive('\n') {
        // A last line without its end was being written when the process ended.
        let Some(line) = line.strip_suffix('\n') else { break };
        let Some(region) = line.strip_prefix(MARKER_REGION) else {
            return Err(damaged(format!("the line {line:?} is not known to this version")));
        };
        named.push(region.to_string());
    }
    Ok(named)
}

fn lock(folder: &Path) -> Result<File, Error> {
    let path = folder.join(MARKER);
    let file = File::open(&path).map_err(io_at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse(folder.to_path_buf())),
        Err(TryLockError::Error(why)) => Err(Error::Io { path, why }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(folder: &Path) -> Vec<String> {
        names(folder).unwrap()
    }

    #[test]
    fn an_absent_or_empty_folder_is_made_ours() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("a/b");
        let checked = Checked::look(&folder).unwrap();
        assert!(!folder.exists());
        drop(checked.hold().unwrap());
        assert_eq!(kept(&folder), [MARKER]);
        drop(Checked::look(&folder).unwrap().hold().unwrap());
        let empty = tempfile::tempdir().unwrap();
        assert!(Checked::look(empty.path()).is_ok());
    }

    #[test]
    fn a_foreign_folder_is_refused_and_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("thesis.tex"), "mine").unwrap();
        let error = Checked::look(folder.path()).unwrap_err();
        assert!(error.to_string().contains("(it holds \"thesis.tex\")"), "{error}");
        assert_eq!(kept(folder.path()), ["thesis.tex"]);
    }

    #[test]
    fn a_file_is_not_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(matches!(Checked::look(&file), Err(Error::NotAFolder(_))));
    }

    #[test]
    fn a_later_format_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(MARKER), "antipode data folder, format 2\n").unwrap();
        let error = Checked::look(folder.path()).unwrap_err().to_string();
        assert!(error.contains("format 2 is not known to this version"), "{error}");
    }

    #[test]
    fn a_region_that_was_here_must_have_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut held = Checked::look(folder.path()).unwrap().hold().unwrap();
        for region in ["east", "west"] {
            fs::write(folder.path().join(format!("{region}.db")), "x").unwrap();
        }
        held.remember(["east", "west"].into_iter()).unwrap();
        held.remember(["east", "west"].into_iter()).unwrap();
        drop(held);
        let text = fs::read_to_string(folder.path().join(MARKER)).unwrap();
        assert_eq!(text, "antipode data folder, format 1\nregion east\nregion west\n");
        assert_eq!(Checked::look(folder.path()).unwrap().regions(), ["east", "west"]);
        fs::remove_file(folder.path().join("east.db")).unwrap();
        let error = Checked::look(folder.path()).unwrap_err().to_string();
        assert!(error.contains("east.db is damaged: it is missing"), "{error}");
    }

    #[test]
    fn a_marker_that_was_being_written_is_read_as_far_as_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let marker = folder.path().join(MARKER);
        for text in [
            "",
            "antipode data",
            "antipode data folder, format 1\n",
            "antipode data folder, format 1\nregion ea",
        ] {
            fs::write(&marker, text).unwrap();
            assert_eq!(read_marker(&marker).unwrap(), Vec::<String>::new(), "{text:?}");
        }
        fs::write(&marker, "antipode data folder, format 1\nregion east\nregion we").unwrap();
        assert_eq!(read_marker(&marker).unwrap(), ["east"]);
        fs::write(folder.path().join("east.db"), "x").unwrap();
        let mut held = Checked::look(folder.path()).unwrap().hold().unwrap();
        held.remember(["east", "west"].into_iter()).unwrap();
        assert_eq!(read_marker(&marker).unwrap(), ["east", "west"]);
        fs::write(&marker, "antipode data folder, format 1\nrent due\n").unwrap();
        assert!(read_marker(&marker).is_err());
    }

    #[test]
    fn two_processes_do_not_share_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let held = Checked::look(folder.path()).unwrap().hold().unwrap();
        assert!(matches!(Checked::look(folder.path()), Err(Error::InUse(_))));
        drop(held);
        assert!(Checked::look(folder.path()).is_ok());
    }

    #[test]
    fn regions_that_have_a_file_are_known() {
        let folder = tempfile::tempdir().unwrap();
        drop(Checked::look(folder.path()).unwrap().hold().unwrap());
        fs::write(folder.path().join("east.db"), "x").unwrap();
        assert_eq!(Checked::look(folder.path()).unwrap().regions(), ["east"]);
    }
}
