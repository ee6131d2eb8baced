package arm

import (
	"net"
	"strings"
)

// Site is where an installation is found and what it is called. All host names
// come from here; none has a port, for clients come through the CONNECT proxy.
type Site struct {
	Suffix       string   // base of all host names, such as castellan.localhost
	Tenant       string   // id of the home directory
	Subscription string   // id of the first subscription
	Location     string   // name of the one region, such as local
	Tenancy      *Tenancy // which tenant has which subscription; nil: Tenant has all
}

// Host is the host of Resource Manager, sign-in and the ML plane.
func (s Site) Host() string { return s.Suffix }

// Base is the URL of Resource Manager, sign-in and the ML plane, without a slash at its end.
func (s Site) Base() string { return "https://" + s.Suffix }

// GraphHost is the host of Microsoft Graph.
func (s Site) GraphHost() string { return "graph." + s.Suffix }

// VaultSuffix is what follows a key vault's name and a dot.
func (s Site) VaultSuffix() string { return "vault." + s.Suffix }

// StorageSuffix is what follows an account's name and a service, as in ACCT.blob.SUFFIX.
func (s Site) StorageSuffix() string { return "core." + s.Suffix }

// RegistrySuffix is what follows a container registry's name and a dot.
func (s Site) RegistrySuffix() string { return "azurecr." + s.Suffix }

// InferenceSuffix is what follows an online endpoint's name and a dot.
func (s Site) InferenceSuffix() string { return "inference." + s.Suffix }

// VaultURL is a key vault's URL, with the slash at its end that Azure writes.
func (s Site) VaultURL(name string) string {
	return "https://" + strings.ToLower(name) + "." + s.VaultSuffix() + "/"
}

// BlobURL is a storage account's blob endpoint, with the slash at its end that Azure writes.
func (s Site) BlobURL(account string) string {
	return "https://" + strings.ToLower(account) + ".blob." + s.StorageSuffix() + "/"
}

// DFSURL is a storage account's Data Lake endpoint, with the slash at its end that Azure writes.
func (s Site) DFSURL(account string) string {
	return "https://" + strings.ToLower(account) + ".dfs." + s.StorageSuffix() + "/"
}

// FileURL is a storage account's File endpoint, with the slash at its end that Azure writes.
func (s Site) FileURL(account string) string {
	return "https://" + strings.ToLower(account) + ".file." + s.StorageSuffix() + "/"
}

// Owns reports whether host, without a port, is one of the installation's names.
func (s Site) Owns(host string) bool {
	host = strings.ToLower(host)
	return host == s.Suffix || strings.HasSuffix(host, "."+s.Suffix)
}

// Label is what stands before ".suffix" in host, if it is one label, else "":
// the vault's name in NAME.vault.SUFFIX.
func Label(host, suffix string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	name, ok := strings.CutSuffix(strings.ToLower(host), "."+suffix)
	if !ok || name == "" || strings.Contains(name, ".") {
		return ""
	}
	return name
}

// ARMAudiences are the audiences of tokens for Resource Manager.
func (s Site) ARMAudiences() []string {
	return []string{s.Base(), "https://management.azure.com", "https://management.core.windows.net"}
}

// MLAudiences are those of tokens for the ML plane beside ARMAudiences. Python's
// client makes the second one from the portal's name.
func (s Site) MLAudiences() []string {
	_, rest, _ := strings.Cut(s.Suffix, ".")
	return []string{"https://ml.azure.com", "https://ml.azure." + rest}
}

// StorageAudiences are those of tokens for storage accounts.
func (s Site) StorageAudiences() []string { return []string{"https://storage.azure.com"} }

// VaultAudiences are those of tokens for key vaults.
func (s Site) VaultAudiences() []string {
	return []string{"https://" + s.VaultSuffix(), "https://vault.azure.net"}
}

// GraphAudiences are those of tokens for Microsoft Graph.
func (s Site) GraphAudiences() []string {
	return []string{"https://" + s.GraphHost(), "https://graph.microsoft.com"}
}
