package app

import (
	"cmp"
	"crypto/tls"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/sallyport-project/sallyport/internal/fault"
	"github.com/sallyport-project/sallyport/internal/plugin/sandbox"
)

// Config is the configuration of a server: one YAML file, read strictly. A
// path that is not absolute is relative to the folder of the file.
type Config struct {
	// DataDir holds the database (SQLite) and the plugin store.
	DataDir string `yaml:"data_dir"`
	// StateDir holds the last checkpoint that this server saw; DataDir if empty.
	// Outside of it a DataDir that is put back as a whole is noticed.
	StateDir string `yaml:"state_dir"`
	// KEK names the file of the key that wraps all others. It must lie outside
	// of DataDir.
	KEK KEK `yaml:"kek"`
	// Storage is SQLite in DataDir unless it says otherwise.
	Storage Storage `yaml:"storage"`
	// TrustDomain is that of the SPIFFE ids in certificates. It cannot be
	// changed after init.
	TrustDomain string `yaml:"trust_domain"`
	Listen      Listen `yaml:"listen"`
	// Verifiers switches kinds of evidence on. None is on by default.
	Verifiers Verifiers `yaml:"verifiers"`
	// KBS is the key broker's door.
	KBS KBS `yaml:"kbs"`
	// Keys says how the keys of the house are looked after.
	Keys    Keys    `yaml:"keys"`
	Plugins Plugins `yaml:"plugins"`
	Notify  Notify  `yaml:"notify"`
	Log     Log     `yaml:"log"`
}

// KEK says where the key encryption key is.
type KEK struct {
	File string   `yaml:"file"`
	Old  []string `yaml:"old"` // earlier keys, for reading only
}

// Storage says where the data are.
type Storage struct {
	Driver string `yaml:"driver"` // sqlite (default) or postgres
	// DSNFile names a file with the connection string of PostgreSQL. The
	// environment's SALLYPORT_DATABASE_URL is used when it is empty.
	DSNFile string `yaml:"dsn_file"`
	Writers int    `yaml:"writers"` // PostgreSQL: connections that write, 1 to 4, by default 2
}

// Listen says where to serve.
type Listen struct {
	Main       Listener   `yaml:"main"`
	Operations string     `yaml:"operations"` // /healthz, /readyz, /metrics; loopback only; "off" for none
	Further    []Listener `yaml:"further"`
}

// The listeners whose names are fixed.
const (
	mainListener       = "main"
	operationsListener = "operations"
)

// Listener is one address with its doors.
type Listener struct {
	// Name tells further listeners apart, in the ready file and in messages; the
	// address if empty. No two share one.
	Name    string   `yaml:"name"`
	Address string   `yaml:"address"`
	Names   []string `yaml:"names"` // DNS names and addresses in the embedded CA's certificate
	// Doors are those that answer here: rest, kbs. Empty means all.
	Doors []string `yaml:"doors"`
	// Plain serves HTTP without TLS. Only for a further listener with doors.
	Plain bool `yaml:"plain"`
	// Certificate and Key replace the embedded CA's server certificate;
	// ClientCA adds an authority for client certificates. All are reloaded when
	// the files change.
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
	ClientCA    string `yaml:"client_ca"`
	// TLS says which versions and suites are spoken; for further listeners only.
	TLS TLS `yaml:"tls"`
}

// Verifiers are the kinds of evidence that are believed.
type Verifiers struct {
	Sample Sample `yaml:"sample"`
	// Enabled are the kinds of real evidence that are taken, by their names in
	// the KBS protocol: snp, tdx, az-snp-vtpm, az-tdx-vtpm, tpm.
	Enabled []string `yaml:"enabled"`
	// Fetch says where endorsements that are missing are asked for.
	Fetch Fetch `yaml:"fetch"`
}

// Fetch names services that hand endorsements out, by https. Nothing is asked of
// anybody else; an empty one is not asked.
type Fetch struct {
	KDS   string `yaml:"kds"`   // AMD's key distribution service, or a cache of it
	PCS   string `yaml:"pcs"`   // Intel's provisioning certification service, or a cache of it (PCCS)
	Roots string `yaml:"roots"` // file with the authorities of their certificates; the system's if empty
}

// Sample is evidence that proves nothing, for trying the protocol out. It works
// on loopback listeners only.
type Sample struct {
	Insecure bool `yaml:"insecure"`
}

// Notify says whom to tell. The console is always told.
type Notify struct {
	Webhooks []Webhook `yaml:"webhooks"`
}

// Webhook is one receiver of signed notifications.
type Webhook struct {
	Name       string `yaml:"name"`
	URL        string `yaml:"url"`
	SecretFile string `yaml:"secret_file"`
}

// Log says how much is logged, and in which form.
type Log struct {
	Level  string `yaml:"level"`  // debug, info (default), warn, error
	Format string `yaml:"format"` // text (default) or json
}

// maxConfig bounds the file.
const maxConfig = 1 << 20

// Load reads a configuration file. Unknown and repeated members are refused
// with their line.
func Load(path string) (Config, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Config{}, fault.NotFoundf("there is no configuration at %s; run: sallyport init", path).Because(err)
	}
	if info.Size() > maxConfig {
		return Config{}, fault.Invalidf("the configuration %s is larger than %d bytes", path, maxConfig)
	}
	text, err := os.ReadFile(path) //nolint:gosec // the operator names it
	if err != nil {
		return Config{}, fault.Unavailablef("the configuration %s cannot be read", path).Because(err)
	}
	folder, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return Config{}, fault.Wrap(err, "resolve configuration folder")
	}
	return Parse(text, folder)
}

// Parse reads the text of a configuration and completes it with defaults;
// relative paths are below folder.
func Parse(text []byte, folder string) (Config, error) {
	var c Config
	if err := yaml.UnmarshalWithOptions(text, &c, yaml.Strict(), yaml.DisallowUnknownField()); err != nil {
		return Config{}, fault.Invalidf("the configuration is not right: %s", yaml.FormatError(err, false, false)).Because(err)
	}
	c.fill()
	for i, l := range c.Listen.Further {
		if l.Name == "" {
			c.Listen.Further[i].Name = l.Address
		}
	}
	for _, p := range c.paths() {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(folder, *p)
		}
	}
	c.KBS.resolve(folder)
	return c, c.Validate()
}

// fill sets the defaults.
func (c *Config) fill() {
	c.KBS.fill()
	for _, d := range []struct {
		member *string
		value  string
	}{
		{&c.DataDir, "data"},
		{&c.KEK.File, filepath.Join("keys", "kek")},
		{&c.Storage.Driver, "sqlite"},
		{&c.TrustDomain, "sallyport.internal"},
		{&c.Listen.Main.Name, mainListener},
		{&c.Listen.Main.Address, "127.0.0.1:8443"},
		{&c.Listen.Operations, "127.0.0.1:9090"},
		{&c.Plugins.Sandbox, string(sandbox.Preferred)},
		{&c.Keys.Rotate.Token, "30d"},
		{&c.Keys.Rotate.EAR, "30d"},
		{&c.Keys.Rotate.Cookie, "30d"},
		{&c.Keys.Rotate.Context, "30d"},
		{&c.Keys.Rotate.CAIntermediate, "300d"},
		{&c.Keys.Rotate.CARoot, off},
		{&c.Keys.Rotate.SSHCA, off},
		{&c.Keys.Rotate.Ledger, off},
		{&c.Keys.Rotate.Pepper, off},
		{&c.Keys.Rotate.RowMAC, off},
		{&c.Log.Level, "info"},
		{&c.Log.Format, "text"},
	} {
		if *d.member == "" {
			*d.member = d.value
		}
	}
	c.StateDir = cmp.Or(c.StateDir, c.DataDir)
}

func (c *Config) paths() []*string {
	paths := []*string{
		&c.DataDir, &c.StateDir, &c.KEK.File, &c.Storage.DSNFile, &c.Verifiers.Fetch.Roots, &c.Plugins.Repository.Dir, &c.Plugins.Repository.Keys, &c.Plugins.Lock,
	}
	for i := range c.KEK.Old {
		paths = append(paths, &c.KEK.Old[i])
	}
	paths = append(paths, c.KBS.External.paths()...)
	listeners := []*Listener{&c.Listen.Main}
	for i := range c.Listen.Further {
		listeners = append(listeners, &c.Listen.Further[i])
	}
	for _, l := range listeners {
		paths = append(paths, &l.Certificate, &l.Key, &l.ClientCA)
	}
	for i := range c.Plugins.Install {
		paths = append(paths, &c.Plugins.Install[i].Source)
	}
	for i := range c.Notify.Webhooks {
		paths = append(paths, &c.Notify.Webhooks[i].SecretFile)
	}
	return paths
}

// Validate refuses what could only fail, or weaken, later.
func (c Config) Validate() error {
	if c.Storage.Driver != "sqlite" && c.Storage.Driver != "postgres" {
		return fault.Invalidf("storage.driver is %q: use sqlite or postgres", c.Storage.Driver)
	}
	if err := c.Listen.Main.validate("listen.main", c.Verifiers.Sample.Insecure); err != nil {
		return err
	}
	if !reflect.DeepEqual(c.Listen.Main.TLS, TLS{}) {
		return fault.Invalidf("listen.main speaks TLS 1.3; tls belongs under listen.further")
	}
	if len(c.Listen.Main.Doors) > 0 || c.Listen.Main.Plain || c.Listen.Main.Name != mainListener {
		return fault.Invalidf("listen.main is called main and serves all doors over TLS; a name, doors, or plain belong under listen.further")
	}
	names := map[string]bool{mainListener: true, operationsListener: true}
	for _, l := range c.Listen.Further {
		if names[l.Name] {
			return fault.Invalidf("listen.further: two listeners are called %s; give each a name of its own, other than main and operations", l.Name)
		}
		names[l.Name] = true
		if err := l.validate("listen.further", c.Verifiers.Sample.Insecure); err != nil {
			return err
		}
		if len(l.Doors) == 0 {
			return fault.Invalidf("listen.further: the listener at %s must name its doors", l.Address)
		}
	}
	if _, err := c.Keys.Rotate.read(); err != nil {
		return err
	}
	if err := c.Verifiers.validate(); err != nil {
		return err
	}
	if err := c.KBS.validate(); err != nil {
		return err
	}
	if c.Listen.Operations != "off" && !loopback(c.Listen.Operations) {
		return fault.Invalidf("listen.operations has no authentication and must be on loopback, for example 127.0.0.1:9090, or off")
	}
	if err := c.Plugins.validate(); err != nil {
		return err
	}
	if err := c.KBS.External.validate(); err != nil {
		return err
	}
	return c.Notify.validate()
}

func (l Listener) validate(where string, sample bool) error {
	if _, _, err := net.SplitHostPort(l.Address); err != nil {
		return fault.Invalidf("%s: the address %q is not host:port", where, l.Address)
	}
	if (l.Certificate == "") != (l.Key == "") {
		return fault.Invalidf("%s: certificate and key go together", where)
	}
	if sample && !loopback(l.Address) {
		return fault.Invalidf("%s: with verifiers.sample.insecure every listener must be on loopback, and %s is not", where, l.Address)
	}
	if err := l.TLS.apply(&tls.Config{}); err != nil {
		return member(where+": tls", err)
	}
	for _, d := range l.Doors {
		if d != "rest" && d != "kbs" {
			return fault.Invalidf("%s: door %q is unknown: use rest or kbs", where, d)
		}
	}
	return nil
}

func (n Notify) validate() error {
	seen := map[string]bool{"console": true}
	for _, w := range n.Webhooks {
		u, err := url.Parse(w.URL)
		switch {
		case w.Name == "" || seen[w.Name] || strings.Contains(w.Name, "/"):
			return fault.Invalidf("notify.webhooks: each webhook needs a name of its own, without a slash, other than console")
		case err != nil || u.Host == "" || u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Host)):
			return fault.Invalidf("notify.webhooks: the URL of %s must be https, or http on loopback", w.Name)
		case w.SecretFile == "":
			return fault.Invalidf("notify.webhooks: %s needs a secret_file with the key for its signatures", w.Name)
		}
		seen[w.Name] = true
	}
	return nil
}

// loopback reports whether host:port, or a bare host, names this machine only.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = strings.Trim(address, "[]")
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
