package arch

// environment lists who may read environment variables besides app, cli, cmd
// and tests, with the reason. Nothing that is read may turn a check off.
var environment = map[string]string{
	"sdk/plugin/cli": "which descriptor the command line has handed over: a process knows that from its environment alone",
	"sdk/plugin/kbs": "a plugin learns from a variable whether a host has started it, or a person",
}

// clocks lists which packages of flow and the nouns may ask for the time
// themselves, with the reason. All others take a now function in their Config.
var clocks = map[string]string{
	"internal/plugin":  "deadlines on connections and processes",
	"internal/monitor": "deadlines on connections and processes",
}

// badNames are package names that say nothing.
var badNames = []string{"util", "utils", "common", "helper", "helpers", "base", "types", "models", "manager", "impl", "pkg", "misc", "shared"}

// maxLines bounds a file that people write.
const maxLines = 500
