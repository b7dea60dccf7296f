//! A strict reader of Prometheus' text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::collections::{BTreeMap, BTreeSet};

type Labels = BTreeMap<String, String>;

/// A scrape that was read. Every departure from the format is a panic that names the line.
pub(super) struct Scrape {
    /// Kind of each family.
    kinds: BTreeMap<String, String>,
    samples: Vec<(String, Labels, f64)>,
}

impl Scrape {
    pub(super) fn read(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line has no end");
        let mut scrape = Self { kinds: BTreeMap::new(), samples: Vec::new() };
        let (mut helped, mut family, mut seen) = (String::new(), String::new(), BTreeSet::new());
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, words) = help.split_once(' ').expect(line);
                assert!(words.ends_with('.') && !scrape.kinds.contains_key(name), "{line}");
                helped = name.to_owned();
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect(line);
                assert_eq!(name, helped, "{line}");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
                scrape.kinds.insert(name.to_owned(), kind.to_owned());
                family = name.to_owned();
            } else {
                let sample = sample(line);
                assert_eq!(scrape.family(&sample.0), family, "{line}");
                assert!(seen.insert((sample.0.clone(), sample.1.clone())), "twice: {line}");
                scrape.samples.push(sample);
            }
        }
        scrape.check_histograms();
        scrape
    }

    /// The family that a sample or a query of that name belongs to.
    pub(super) fn family(&self, name: &str) -> String {
        let histogram = ["_bucket", "_sum", "_count"].into_iter().find_map(|suffix| {
            let base = name.strip_suffix(suffix)?;
            (self.kinds.get(base)? == "histogram").then(|| base.to_owned())
        });
        let family = histogram.unwrap_or_else(|| name.to_owned());
        assert!(self.kinds.contains_key(&family), "{name} is not in the scrape");
        family
    }

    /// The one sample of that name with these labels.
    pub(super) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let wanted: Labels =
            labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let found = self.samples.iter().find(|(n, labels, _)| n == name && *labels == wanted);
        found.unwrap_or_else(|| panic!("no {name} {labels:?}")).2
    }

    /// Whether any sample of that name has the label, with that value.
    pub(super) fn has(&self, name: &str, label: &str, value: Option<&str>) -> bool {
        let fits = |text: &String| value.is_none_or(|value| value == text);
        self.samples.iter().any(|(n, labels, _)| n == name && labels.get(label).is_some_and(fits))
    }

    /// Whether there is a family of that name.
    pub(super) fn knows(&self, family: &str) -> bool {
        self.kinds.contains_key(family)
    }

    /// The names of all families.
    pub(super) fn families(&self) -> impl Iterator<Item = &str> {
        self.kinds.keys().map(String::as_str)
    }

    fn check_histograms(&self) {
        for (base, _) in self.kinds.iter().filter(|(_, kind)| *kind == "histogram") {
            let buckets = format!("{base}_bucket");
            let (mut before, mut any) = (0.0, false);
            for (_, labels, count) in self.samples.iter().filter(|(name, ..)| *name == buckets) {
                assert!(*count >= before, "{base}: buckets do not add up");
                before = *count;
                any = true;
                if labels.get("le").map(String::as_str) == Some("+Inf") {
                    let others: Vec<(&str, &str)> = labels
                        .iter()
                        .filter(|(name, _)| *name != "le")
                        .map(|(name, value)| (name.as_str(), value.as_str()))
                        .collect();
                    assert_eq!(self.value(&format!("{base}_count"), &others), *count, "{base}");
                    assert!(self.value(&format!("{base}_sum"), &others) >= 0.0, "{base}");
                    before = 0.0;
                }
            }
            assert!(any && before == 0.0, "{base}: no bucket +Inf at the end");
        }
    }
}

/// `name{label="value",...} number`
fn sample(line: &str) -> (String, Labels, f64) {
    let (series, number) = line.rsplit_once(' ').expect(line);
    let (name, mut rest) = match series.split_once('{') {
        None => (series, ""),
        Some((name, labels)) => (name, labels.strip_suffix('}').expect(line)),
    };
    let plain = |text: &str| {
        let mut letters = text.chars();
        letters.next().is_some_and(|c| c.is_ascii_lowercase())
            && letters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    assert!(plain(name), "{line}");
    let mut labels = Labels::new();
    while !rest.is_empty() {
        let (label, value) = rest.split_once("=\"").expect(line);
        // No value of ours holds what has to be escaped.
        let (value, more) = value.split_once('"').expect(line);
        assert!(plain(label) && !value.contains('\\'), "{line}");
        assert!(labels.insert(label.into(), value.into()).is_none(), "{line}");
        rest = more.strip_prefix(',').unwrap_or(more);
        assert_eq!(rest.is_empty(), more.is_empty(), "{line}");
    }
    (name.to_owned(), labels, number.parse().expect(line))
}
