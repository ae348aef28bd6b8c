//! The grammar of the command line. What clap has to say about a mistake is cut to one line.

use std::{path::PathBuf, time::Duration};

use antipode_simulation::cli::SimCommand;
use clap::{Args, Parser, Subcommand, ValueEnum, error::ErrorKind};

use super::duration;

/// A durable-execution cluster that speaks the Temporal API and runs in several regions.
#[derive(Debug, Parser)]
#[command(name = "antipode", version, about, disable_help_subcommand = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Starts one to five linked regions in this process.
    Dev(DevArguments),
    /// Starts one region from a configuration file.
    Start(StartArguments),
    /// Creates, shows and lists namespaces.
    #[command(subcommand)]
    Namespace(NamespaceCommand),
    /// Moves a namespace to another region.
    Failover(FailoverArguments),
    /// Cuts, heals and shows the links between regions.
    #[command(subcommand)]
    Link(LinkCommand),
    /// Looks into a run: its state, branches, digest.
    #[command(subcommand)]
    Run(RunCommand),
    /// Simulates several regions in virtual time: random seeds, scenarios, exploration.
    #[command(subcommand)]
    Sim(SimCommand),
}

/// Options of `dev`.
#[derive(Debug, Args)]
pub struct DevArguments {
    /// How many regions: east, west, north, south, central.
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub regions: usize,
    /// Folder of the regions' files; made when absent.
    #[arg(long, default_value = "./data", value_name = "FOLDER")]
    pub data_dir: PathBuf,
    /// Keep everything in memory: nothing outlives the process.
    #[arg(long)]
    pub in_memory: bool,
    /// gRPC port of east; each further region takes 1000 more. Metrics are served on gRPC port + 90.
    #[arg(long, default_value_t = 7233, value_name = "PORT")]
    pub base_port: u16,
    /// A global namespace, minted once, active in east, with all regions in its list.
    #[arg(long, default_value = "default", value_name = "NAME")]
    pub namespace: String,
    /// Log filter, such as `info` or `warn,antipode_replicator=debug`.
    #[arg(long, default_value = "warn,antipode=info", env = "ANTIPODE_LOG", value_name = "FILTER")]
    pub log: String,
    /// Form of log lines, on standard error.
    #[arg(long, value_enum, default_value_t = FormatArgument::Human)]
    pub log_format: FormatArgument,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatArgument {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Options of `start`.
#[derive(Debug, Args)]
pub struct StartArguments {
    /// Configuration file (YAML); see docs/configuration.md.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Which node is asked, and in what form it answers.
#[derive(Clone, Debug, Args)]
pub struct Target {
    /// Node to ask, host:port.
    #[arg(long, env = "TEMPORAL_ADDRESS", default_value = "127.0.0.1:7233", value_name = "HOST:PORT")]
    pub address: String,
    /// Form of the answer.
    #[arg(long, short, value_enum, default_value_t = Output::Human)]
    pub output: Output,
}

/// Form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Human,
    /// One JSON value.
    Json,
}

/// `namespace ...`
#[derive(Debug, Subcommand)]
pub enum NamespaceCommand {
    /// Creates a global namespace; every region of its list learns it over the links.
    Create {
        /// Name.
        name: String,
        /// Region where it is active; the asked node's when absent.
        #[arg(long, value_name = "REGION")]
        active: Option<String>,
        /// Regions that hold it, comma separated; all that the node knows when absent.
        #[arg(long, value_delimiter = ',')]
        regions: Vec<String>,
        /// How long closed runs are kept, such as 72h or 30d.
        #[arg(long, default_value = "72h", value_parser = duration::parse, value_name = "TIME")]
        retention: Duration,
        /// What it is for.
        #[arg(long, default_value = "")]
        description: String,
        /// Which node.
        #[command(flatten)]
        target: Target,
    },
    /// Shows a namespace: where it is active, under which version, its failover history.
    Describe {
        /// Name.
        name: String,
        /// Which node.
        #[command(flatten)]
        target: Target,
    },
    /// Lists all namespaces.
    List {
        /// Which node.
        #[command(flatten)]
        target: Target,
    },
}

/// Options of `failover`.
#[derive(Debug, Args)]
pub struct FailoverArguments {
    /// Namespace to move.
    pub namespace: String,
    /// Region that becomes active.
    #[arg(long, value_name = "REGION")]
    pub to: String,
    /// Do not wait for the region that is active now: what it has not sent is lost, or comes back as a losing branch.
    #[arg(long)]
    pub force: bool,
    /// How long a graceful hand-over may take before it is undone.
    #[arg(long, default_value = "10s", value_parser = duration::parse, value_name = "TIME")]
    pub deadline: Duration,
    /// Reason, kept in the failover history.
    #[arg(long, default_value = "")]
    pub why: String,
    /// Which node.
    #[command(flatten)]
    pub target: Target,
}

/// `link ...`
#[derive(Debug, Subcommand)]
pub enum LinkCommand {
    /// Cuts all traffic of one direction: replication, forwarding, commands.
    Cut {
        /// Sending region.
        from: String,
        /// Receiving region.
        to: String,
        /// The other direction as well.
        #[arg(long)]
        both: bool,
        /// Which node: one of the two.
        #[command(flatten)]
        target: Target,
    },
    /// Ends a cut.
    Heal {
        /// Sending region.
        from: String,
        /// Receiving region.
        to: String,
        /// The other direction as well.
        #[arg(long)]
        both: bool,
        /// Which node: one of the two.
        #[command(flatten)]
        target: Target,
    },
    /// Shows the links of a node: who is connected, what is not proved yet.
    Status {
        /// Which node.
        #[command(flatten)]
        target: Target,
    },
    /// For tests: holds the entries of one run back; breaks the order of law B8 on purpose.
    HoldRun {
        /// Run id.
        run: String,
        /// Sending region.
        #[arg(long, value_name = "REGION")]
        from: String,
        /// Receiving region.
        #[arg(long, value_name = "REGION")]
        to: String,
        /// Which node.
        #[command(flatten)]
        target: Target,
    },
    /// For tests: lets a held run go.
    ReleaseRun {
        /// Run id.
        run: String,
        /// Sending region.
        #[arg(long, value_name = "REGION")]
        from: String,
        /// Receiving region.
        #[arg(long, value_name = "REGION")]
        to: String,
        /// Which node.
        #[command(flatten)]
        target: Target,
    },
}

/// Which run.
#[derive(Clone, Debug, Args)]
pub struct RunSelector {
    /// Workflow id.
    pub workflow_id: String,
    /// Run id; the current run when absent.
    #[arg(long, short = 'r')]
    pub run_id: Option<String>,
    /// Namespace.
    #[arg(long, short = 'n', env = "TEMPORAL_NAMESPACE", default_value = "default")]
    pub namespace: String,
}

/// `run ...`
#[derive(Debug, Subcommand)]
pub enum RunCommand {
    /// Shows a run's state, tip and digest.
    Inspect {
        /// Which run.
        #[command(flatten)]
        run: RunSelector,
        /// Which node.
        #[command(flatten)]
        target: Target,
    },
    /// Draws a run's tree of branches: the winner, and why it won.
    Branches {
        /// Which run.
        #[command(flatten)]
        run: RunSelector,
        /// Which node.
        #[command(flatten)]
        target: Target,
    },
}

/// Parses the words of the command line; a mistake, or a request for help, ends in what to print and the exit code.
///
/// # Errors
/// Text for standard output (exit code 0) or one line for standard error (exit code 2).
pub fn parse<I, T>(words: I) -> Result<Arguments, (String, u8)>
where
    I: IntoIterator<Item = T>,
    T: Into<std::ffi::OsString> + Clone,
{
    Arguments::try_parse_from(words).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => (error.render().to_string(), 0),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            (error.render().to_string().trim_end().to_string(), 2)
        }
        _ => (one_line(&error.render().to_string()), 2),
    })
}

/// The first paragraph of clap's words on one line: it names the option and the value.
fn one_line(text: &str) -> String {
    let first = text.split("\n\n").next().unwrap_or(text);
    let line = first.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("{line} (see --help)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(words: &[&str]) -> (String, u8) {
        parse(std::iter::once(&"antipode").chain(words)).unwrap_err()
    }

    #[test]
    fn a_bad_option_is_one_line_that_names_it() {
        let (text, code) = refused(&["dev", "--regoins", "2"]);
        assert_eq!((text.lines().count(), code), (1, 2));
        assert!(text.contains("--regoins"), "{text}");
        let (text, code) = refused(&["dev", "--regions", "two"]);
        assert_eq!((text.lines().count(), code), (1, 2));
        assert!(text.contains("--regions") && text.contains("two"), "{text}");
        let (text, _) = refused(&["failover", "default"]);
        assert!(text.contains("--to <REGION>") && text.lines().count() == 1, "{text}");
        let (text, _) = refused(&["failover", "default", "--to", "west", "--deadline", "soon"]);
        assert!(text.contains("--deadline") && text.contains("soon"), "{text}");
    }

    #[test]
    fn help_is_no_failure() {
        let (text, code) = refused(&["dev", "--help"]);
        assert_eq!(code, 0);
        assert!(text.contains("--data-dir"), "{text}");
    }

    #[test]
    fn the_grammar_is_sound() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
