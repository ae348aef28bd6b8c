//! Logs on standard error, human or JSON. Several regions share a process and each runs on threads that carry its name,
//! so every line says which region speaks, whatever crate wrote it.

use std::{fmt, str::FromStr};

use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter,
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

use antipode_config::LogFormat;

/// A filter that means nothing.
#[derive(Debug, thiserror::Error)]
#[error("--log: {text:?} is not a log filter ({why}); try `info` or `warn,antipode_replicator=debug`")]
pub struct BadFilter {
    text: String,
    why: String,
}

/// Checks a filter without installing anything.
///
/// # Errors
/// [`BadFilter`].
pub fn filter(text: &str) -> Result<EnvFilter, BadFilter> {
    EnvFilter::from_str(text).map_err(|why| BadFilter { text: text.to_string(), why: why.to_string() })
}

/// Installs the process's log writer. Called once, by `main`.
pub fn install(filter: EnvFilter, format: LogFormat, regions: Vec<String>) {
    let lines = Lines { format, regions };
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    let colour = format == LogFormat::Human && std::io::IsTerminal::is_terminal(&std::io::stderr());
    // A second call, in a test, keeps the first writer: there is one standard error.
    let _ = builder.with_ansi(colour).event_format(lines).try_init();
}

/// Writes one event as one line.
struct Lines {
    format: LogFormat,
    regions: Vec<String>,
}

impl Lines {
    /// The region whose thread this is: threads are called `east` or `east/what-they-do`.
    fn region(&self) -> &str {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or_default();
        let name = name.split('/').next().unwrap_or_default();
        self.regions.iter().find(|region| *region == name).map_or("-", String::as_str)
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match self.format {
            LogFormat::Human => self.human(context, &mut writer, event)?,
            LogFormat::Json => self.json(context, &mut writer, event)?,
        }
        writeln!(writer)
    }
}

impl Lines {
    fn human<S, N>(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: &mut Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
        N: for<'a> FormatFields<'a> + 'static,
    {
        SystemTime.format_time(writer)?;
        let (level, target) = (event.metadata().level(), event.metadata().target());
        write!(writer, " {level:>5} {:<7} {}: ", self.region(), short(target))?;
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            write!(writer, "{}", span.name())?;
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>()
                && !fields.is_empty()
            {
                write!(writer, "{{{fields}}}")?;
            }
            write!(writer, ": ")?;
        }
        context.field_format().format_fields(writer.by_ref(), event)
    }

    fn json<S, N>(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: &mut Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
        N: for<'a> FormatFields<'a> + 'static,
    {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut line = Map::new();
        line.insert("time".to_string(), time.into());
        line.insert("level".to_string(), event.metadata().level().to_string().into());
        line.insert("region".to_string(), self.region().into());
        line.insert("target".to_string(), event.metadata().target().into());
        let spans: Vec<Value> = context
            .event_scope()
            .into_iter()
            .flat_map(|scope| scope.from_root())
            .map(|span| {
                let fields = span.extensions().get::<FormattedFields<N>>().map(ToString::to_string);
                Value::from(format!("{}{{{}}}", span.name(), fields.unwrap_or_default()))
            })
            .collect();
        if !spans.is_empty() {
            line.insert("spans".to_string(), spans.into());
        }
        event.record(&mut JsonFields(&mut line));
        write!(writer, "{}", Value::Object(line))
    }
}

/// `antipode_replicator::sender` without the part that is the same in every line.
fn short(target: &str) -> &str {
    target.strip_prefix("antipode_").unwrap_or(target)
}

struct JsonFields<'a>(&'a mut Map<String, Value>);

impl JsonFields<'_> {
    /// A field must not hide one of the line's own; but of a thread that is no region's, a field may say the region.
    fn put(&mut self, field: &Field, value: Value) {
        let nobody = self.0.get("region").is_some_and(|region| region == "-");
        let name = match field.name() {
            "region" if nobody => "region".to_string(),
            taken @ ("time" | "level" | "region" | "target" | "spans") => format!("field_{taken}"),
            free => free.to_string(),
        };
        self.0.insert(name, value);
    }
}

impl Visit for JsonFields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Sink {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    fn said_by(thread: &str, format: LogFormat) -> String {
        let sink = Sink::default();
        let lines = Lines { format, regions: vec!["east".into(), "west".into()] };
        let subscriber =
            tracing_subscriber::fmt().with_writer(sink.clone()).with_ansi(false).event_format(lines).finish();
        let speak = move || {
            tracing::subscriber::with_default(subscriber, || {
                let _span = tracing::info_span!("shard", id = 3).entered();
                tracing::info!(lag = 7, region = "field", "caught up");
            });
        };
        std::thread::Builder::new().name(thread.to_string()).spawn(speak).unwrap().join().unwrap();
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_names_the_region_whose_thread_speaks() {
        let line = said_by("west/store", LogFormat::Human);
        assert!(line.contains(" INFO west "), "{line}");
        assert!(line.contains("shard{id=3}: caught up lag=7"), "{line}");
        assert!(said_by("main", LogFormat::Human).contains(" INFO - "));
    }

    #[test]
    fn a_json_line_is_one_object_whose_region_no_field_can_hide() {
        let line = said_by("east", LogFormat::Json);
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["region"], "east");
        assert_eq!(value["field_region"], "field");
        assert_eq!(value["message"], "caught up");
        assert_eq!(value["lag"], 7);
        let line = said_by("main", LogFormat::Json);
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["region"], "field");
    }

    #[test]
    fn a_bad_filter_is_named() {
        let error = filter("info,=nonsense=x").unwrap_err().to_string();
        assert!(error.starts_with("--log: \"info,=nonsense=x\" is not a log filter"), "{error}");
        assert!(filter("warn,antipode_replicator=debug").is_ok());
    }
}
