package plugin

import (
	"context"
	"log/slog"
	"slices"
	"time"

	akms "github.com/sallyport-project/sallyport/api/agentkms/plugin/v1"
	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
)

// Announced is what a plugin of agentkms.plugin.v1 says that it can do besides, if it
// is of a version that says so. Nothing is demanded of it, and nothing follows from
// it but what an operator sees.
type Announced struct {
	Capabilities []string `json:"capabilities"` // sorted
	APIVersion   uint32   `json:"api_version"`  // 0 if it does not say
}

const (
	announceWithin = time.Second // for all services together
	maxAnnounced   = 32
)

var akmsServices = map[string]string{
	manifest.RoleValidator:  akms.ScopeValidatorService_ServiceDesc.ServiceName,
	manifest.RoleAnalyzer:   akms.ScopeAnalyzerService_ServiceDesc.ServiceName,
	manifest.RoleSerializer: akms.ScopeSerializerService_ServiceDesc.ServiceName,
	manifest.RoleVender:     akms.CredentialVenderService_ServiceDesc.ServiceName,
}

// announce asks the services of agentkms.plugin.v1 for their capabilities. Whatever
// goes wrong leaves the plugin what it is without them.
func (h *Host) announce(ctx context.Context, i *instance) {
	if i.m.Contract != manifest.ContractAgentKMS {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, announceWithin)
	defer cancel()
	seen := map[string]bool{}
	for _, role := range i.m.Roles {
		a := &akms.CapabilitiesResponse{}
		err := i.conn.Invoke(ctx, akms.CapabilitiesMethod(akmsServices[role]), &akms.CapabilitiesRequest{}, a)
		if err != nil {
			if !unimplemented(err) {
				h.cfg.Log.DebugContext(ctx, "plugin does not say what it can do", slog.String("plugin", i.m.Name), slog.String("role", role), slog.Any("err", err))
			}
			continue
		}
		if i.announced == nil {
			i.announced = &Announced{Capabilities: []string{}}
		}
		i.announced.APIVersion = max(i.announced.APIVersion, a.GetApiVersion())
		for _, c := range a.GetCapabilities() {
			if c = clip(c, 64); len(seen) < maxAnnounced && !seen[c] {
				seen[c] = true
				i.announced.Capabilities = append(i.announced.Capabilities, c)
			}
		}
	}
	if i.announced == nil {
		return
	}
	slices.Sort(i.announced.Capabilities)
	if v := i.announced.APIVersion; v > akms.APIVersion {
		h.cfg.Log.WarnContext(ctx, "plugin is for a later version of its contract than this host speaks", slog.String("plugin", i.m.Name), slog.Any("version", v))
	}
}
