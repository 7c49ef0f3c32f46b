//! The profiles there are: those bedrail brings and those a site adds. Pure; whoever reads files hands their texts in.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Profile, ProfileError, ProfileErrors};

/// What bedrail brings, from config/profiles.
pub const SHIPPED: &[(&str, &str)] = &[
    ("and-uc352ble.toml", include_str!("../../config/profiles/and-uc352ble.toml")),
    ("choicemmed-c228.toml", include_str!("../../config/profiles/choicemmed-c228.toml")),
    ("contec-cms50d.toml", include_str!("../../config/profiles/contec-cms50d.toml")),
    ("jumper-jpd500.toml", include_str!("../../config/profiles/jumper-jpd500.toml")),
    ("masimo-mightysat.toml", include_str!("../../config/profiles/masimo-mightysat.toml")),
    ("nonin-3230.toml", include_str!("../../config/profiles/nonin-3230.toml")),
    ("viatom-o2ring.toml", include_str!("../../config/profiles/viatom-o2ring.toml")),
    ("viatom-pc60fw.toml", include_str!("../../config/profiles/viatom-pc60fw.toml")),
    ("xiaomi-mibcs.toml", include_str!("../../config/profiles/xiaomi-mibcs.toml")),
    ("xiaomi-miscale.toml", include_str!("../../config/profiles/xiaomi-miscale.toml")),
    ("yonker-ykbpa1.toml", include_str!("../../config/profiles/yonker-ykbpa1.toml")),
];

#[derive(Clone, Debug, Default)]
pub struct Library(BTreeMap<String, Known>);

/// A profile and where it is from.
#[derive(Clone, Debug)]
pub struct Known {
    pub profile: Arc<Profile>,
    pub file: String,
    /// It is the site's own.
    pub own: bool,
}

impl Library {
    pub fn shipped() -> Result<Self, ProfileErrors> {
        let mut library = Self::default();
        for (file, text) in SHIPPED {
            library.add(text, &format!("bedrail's own {file}"), false)?;
        }
        Ok(library)
    }

    /// Adds one of the site's: it takes the place of one bedrail brings, and never of another of the site's.
    pub fn add_own(&mut self, text: &str, file: &str) -> Result<(), ProfileErrors> {
        self.add(text, file, true)
    }

    fn add(&mut self, text: &str, file: &str, own: bool) -> Result<(), ProfileErrors> {
        let profile = Profile::read(text, file)?;
        if let Some(other) = self.0.get(&profile.id).filter(|other| other.own || !own) {
            let message = format!("`id` is \"{}\", as in {}; give each its own", profile.id, other.file);
            let error = ProfileError { file: file.to_owned(), line: None, place: "profile".to_owned(), message };
            return Err(ProfileErrors(vec![error]));
        }
        self.0.insert(profile.id.clone(), Known { profile: Arc::new(profile), file: file.to_owned(), own });
        Ok(())
    }

    pub fn get(&self, id: &str) -> Option<&Known> {
        self.0.get(id)
    }

    /// By id.
    pub fn iter(&self) -> impl Iterator<Item = &Known> {
        self.0.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_bedrail_brings_passes_its_own_tests_and_has_its_files_name() {
        let library = Library::shipped().unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(library.iter().count(), SHIPPED.len());
        let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/config/profiles")).unwrap().count();
        assert_eq!(files, SHIPPED.len(), "a file in config/profiles is not in SHIPPED");
        for known in library.iter() {
            assert_eq!(known.file, format!("bedrail's own {}.toml", known.profile.id));
        }
    }

    #[test]
    fn a_site_may_replace_what_bedrail_brings_and_nothing_twice() {
        let mut library = Library::shipped().unwrap();
        let text = SHIPPED.iter().find(|(file, _)| *file == "jumper-jpd500.toml").unwrap().1;
        library.add_own(text, "a.toml").unwrap();
        assert!(library.get("jumper-jpd500").unwrap().own);
        let errors = library.add_own(text, "b.toml").unwrap_err().to_string();
        assert_eq!(errors, "b.toml: profile: `id` is \"jumper-jpd500\", as in a.toml; give each its own");
    }
}
