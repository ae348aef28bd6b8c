//! The data folder of `antipode dev`. It is looked at before anything is written: a folder that holds something else, a
//! damaged file, or a folder that another process uses is refused, and stays as it was.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use antipode_config::REGION_NAMES;

/// Marks a folder as ours and holds the lock of the process that uses it.
const MARKER: &str = "antipode.lock";
/// First line of the marker.
const MARKER_TEXT: &str = "antipode data folder, format 1\n";
/// How a SQLite file begins.
const SQLITE_MAGIC: &[u8] = b"SQLite format 3\0";

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
    #[error("--data-dir: {}: {why}", path.display())]
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
}

/// A folder in use by this process; another process is refused until this is dropped.
#[derive(Debug)]
pub struct Held {
    _lock: File,
}

impl Checked {
    /// Looks at a folder, and takes its lock when it has one. Writes nothing.
    ///
    /// # Errors
    /// [`Error`].
    pub fn look(folder: &Path) -> Result<Self, Error> {
        let mut checked = Self { folder: folder.to_path_buf(), lock: None, regions: Vec::new() };
        match fs::metadata(folder) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(checked),
            Err(why) => return Err(io_at(folder)(why)),
            Ok(found) if !found.is_dir() => return Err(Error::NotAFolder(folder.to_path_buf())),
            Ok(_) => {}
        }
        let names = names(folder)?;
        let marked = names.iter().any(|name| name == MARKER);
        if marked {
            check_marker(&folder.join(MARKER))?;
            checked.lock = Some(lock(folder)?);
        } else if let Some(found) = names.into_iter().next() {
            return Err(Error::Foreign { folder: folder.to_path_buf(), found });
        }
        for region in REGION_NAMES {
            let file = folder.join(format!("{region}.db"));
            if check_database(&file)? {
                checked.regions.push(region.to_string());
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
        if let Some(lock) = self.lock {
            return Ok(Held { _lock: lock });
        }
        fs::create_dir_all(&self.folder).map_err(io_at(&self.folder))?;
        let path = self.folder.join(MARKER);
        let mut file = File::create(&path).map_err(io_at(&path))?;
        file.write_all(MARKER_TEXT.as_bytes()).and_then(|()| file.sync_all()).map_err(io_at(&path))?;
        Ok(Held { _lock: lock(&self.folder)? })
    }
}

fn names(folder: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(io_at(folder))? {
        names.push(entry.map_err(io_at(folder))?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn check_marker(path: &Path) -> Result<(), Error> {
    let text = fs::read_to_string(path).map_err(io_at(path))?;
    // An empty one: the process ended between making and filling it.
    if text == MARKER_TEXT || text.is_empty() {
        return Ok(());
    }
    let first = text.lines().next().unwrap_or_default();
    let why = match first.strip_prefix("antipode data folder, format ") {
        Some(format) => format!("format {format} is not known to this version"),
        None => "it does not begin as a marker of Antipode does".to_string(),
    };
    Err(Error::Damaged { file: path.to_path_buf(), why })
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

/// Whether a region's file is there and begins as one must. An empty file is one that was never written to.
fn check_database(path: &Path) -> Result<bool, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(why) => return Err(io_at(path)(why)),
    };
    let mut head = Vec::new();
    let length = SQLITE_MAGIC.len();
    file.take(length as u64).read_to_end(&mut head).map_err(io_at(path))?;
    if head.is_empty() || head == SQLITE_MAGIC {
        return Ok(!head.is_empty());
    }
    Err(Error::Damaged {
        file: path.to_path_buf(),
        why: "it does not begin as a SQLite file does".to_string(),
    })
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
    fn a_damaged_region_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        drop(Checked::look(folder.path()).unwrap().hold().unwrap());
        fs::write(folder.path().join("west.db"), "not a database at all").unwrap();
        let error = Checked::look(folder.path()).unwrap_err().to_string();
        assert!(error.contains("west.db is damaged: it does not begin as a SQLite file does"), "{error}");
    }

    #[test]
    fn a_later_format_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(MARKER), "antipode data folder, format 2\n").unwrap();
        let error = Checked::look(folder.path()).unwrap_err().to_string();
        assert!(error.contains("format 2 is not known to this version"), "{error}");
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
        fs::write(folder.path().join("east.db"), [SQLITE_MAGIC, b"rest"].concat()).unwrap();
        assert_eq!(Checked::look(folder.path()).unwrap().regions(), ["east"]);
    }
}
