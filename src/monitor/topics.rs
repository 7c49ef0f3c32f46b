//! Where the state of a gateway is published: its own topic, and below it one for each device and each route.

const GATEWAY: &str = "{gateway}";
const DEVICE: &str = "device";
const ROUTE: &str = "route";

/// From a template with the level `{gateway}`, such as `bedrail/{gateway}/status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    template: String,
}

/// What a topic is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject<'t> {
    Gateway,
    Device(&'t str),
    Route(&'t str),
}

impl Topics {
    /// The config has checked the template; names of gateways, devices and routes hold nothing a level may not.
    pub fn new(template: &str) -> Self {
        Self { template: template.to_owned() }
    }

    pub fn gateway(&self, gateway: &str) -> String {
        self.template.replace(GATEWAY, gateway)
    }

    pub fn device(&self, gateway: &str, device: &str) -> String {
        format!("{}/{DEVICE}/{device}", self.gateway(gateway))
    }

    pub fn route(&self, gateway: &str, route: &str) -> String {
        format!("{}/{ROUTE}/{route}", self.gateway(gateway))
    }

    /// Matches the topics of all gateways.
    pub fn filter(&self) -> String {
        format!("{}/#", self.gateway("+"))
    }

    /// The gateway a topic belongs to and what it is about; `None` for a topic of something else.
    pub fn parse<'t>(&self, topic: &'t str) -> Option<(&'t str, Subject<'t>)> {
        let mut levels = topic.split('/');
        let mut gateway = None;
        for expected in self.template.split('/') {
            let level = levels.next()?;
            match expected {
                GATEWAY => gateway = Some(level),
                _ if expected == level => {}
                _ => return None,
            }
        }
        let subject = match (levels.next(), levels.next(), levels.next()) {
            (None, ..) => Subject::Gateway,
            (Some(DEVICE), Some(name), None) => Subject::Device(name),
            (Some(ROUTE), Some(name), None) => Subject::Route(name),
            _ => return None,
        };
        Some((gateway?, subject))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_leads_back_to_what_it_is_about() {
        for template in ["bedrail/{gateway}/status", "{gateway}", "devices/{gateway}/messages/events"] {
            let topics = Topics::new(template);
            for (topic, subject) in [
                (topics.gateway("gw-1"), Subject::Gateway),
                (topics.device("gw-1", "oxi-07"), Subject::Device("oxi-07")),
                (topics.route("gw-1", "live"), Subject::Route("live")),
            ] {
                assert_eq!(topics.parse(&topic), Some(("gw-1", subject)), "{topic}");
            }
        }
    }

    #[test]
    fn a_record_of_a_device_called_status_is_no_state() {
        let topics = Topics::new("bedrail/{gateway}/status");
        assert_eq!(topics.filter(), "bedrail/+/status/#");
        for topic in ["bedrail/gw/status/spo2", "bedrail/gw/status/device/a/b", "bedrail/gw", "other/gw/status", "bedrail/gw/x/y"]
        {
            assert_eq!(topics.parse(topic), None, "{topic}");
        }
    }
}
