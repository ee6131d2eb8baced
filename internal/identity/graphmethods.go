package identity

import (
	"net/http"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// Administrators see how people sign in, and take a method away that was lost or
// stolen. They can't add one: who adds a method can sign in by it.
var (
	readMethods   = arm.NewAction("microsoft.directory/users/authenticationMethods/standard/read", "see how a person signs in")
	deleteMethods = arm.NewAction("microsoft.directory/users/authenticationMethods/delete", "take away a way to sign in, and sign the person out everywhere")
)

// passwordMethod is the id that a password has as a method, for everybody.
const passwordMethod = "28c10230-6103-485e-b985-444c60001490"

func (s *Service) methodDoors() []gate.Route {
	list := func(kind string) func(*visit) (answer, error) {
		return func(v *visit) (answer, error) { return v.listMethods(kind) }
	}
	one := func(kind string) func(*visit) (answer, error) {
		return func(v *visit) (answer, error) { return v.showMethod(kind) }
	}
	drop := func(kind string) func(*visit) (answer, error) {
		return func(v *visit) (answer, error) { return v.dropMethod(kind) }
	}
	const at = "users/{id}/authentication/"
	return []gate.Route{
		s.door(readMethods, "GET "+at+"methods", list("")),
		s.door(readMethods, "GET "+at+"methods/{method}", one("")),
		s.door(readMethods, "GET "+at+"passwordmethods", list("password")),
		s.door(readMethods, "GET "+at+"passwordmethods/{method}", one("password")),
		s.door(readMethods, "GET "+at+"fido2methods", list("fido2")),
		s.door(readMethods, "GET "+at+"fido2methods/{method}", one("fido2")),
		s.door(deleteMethods, "DELETE "+at+"fido2methods/{method}", drop("fido2")),
		s.door(readMethods, "GET "+at+"softwareoathmethods", list("softwareOath")),
		s.door(readMethods, "GET "+at+"softwareoathmethods/{method}", one("softwareOath")),
		s.door(deleteMethods, "DELETE "+at+"softwareoathmethods/{method}", drop("softwareOath")),
	}
}

// methodsShown are a person's methods of one kind, or all of them, as Graph has
// them: never what proves anything.
func (v *visit) methodsShown(u *User, kind string) ([]map[string]any, error) {
	m, err := v.s.methodsOf(v.r.Context(), u)
	if err != nil {
		return nil, err
	}
	rows := []map[string]any{}
	add := func(k string, row map[string]any) {
		switch kind {
		case "":
			rows = append(rows, typedShow(k+"AuthenticationMethod", row))
		case k:
			rows = append(rows, row)
		}
	}
	add("password", map[string]any{"id": passwordMethod, "password": nil, "createdDateTime": stamp(u.Created)})
	for _, k := range m.Passkeys {
		add("fido2", map[string]any{"id": k.ID, "displayName": k.Name, "createdDateTime": stamp(k.Created), "aaGuid": guidText(k.Key.Model), "model": nil,
			"attestationCertificates": []string{}, "attestationLevel": "notAttested", "lastUsedDateTime": stamp(k.Used), "passkeyType": passkeyType(k)})
	}
	for _, a := range m.Apps {
		add("softwareOath", map[string]any{"id": a.ID, "displayName": a.Name, "secretKey": nil, "createdDateTime": stamp(a.Created), "lastUsedDateTime": stamp(a.Used)})
	}
	return rows, nil
}

func passkeyType(k passkey) string {
	if k.Key.Backup {
		return "synced"
	}
	return "deviceBound"
}

// guidText writes 16 bytes as a GUID.
func guidText(b []byte) string {
	if len(b) != 16 {
		return noCorrelation
	}
	const hex = "0123456789abcdef"
	var out strings.Builder
	for i, c := range b {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			out.WriteByte('-')
		}
		out.WriteByte(hex[c>>4])
		out.WriteByte(hex[c&15])
	}
	return out.String()
}

func (v *visit) listMethods(kind string) (answer, error) {
	u, err := v.user(v.seg(1))
	if err != nil {
		return answer{}, err
	}
	rows, err := v.methodsShown(u, kind)
	if err != nil {
		return answer{}, err
	}
	return v.list("users('"+u.ID+"')/authentication/"+v.seg(3), rows)
}

func (v *visit) showMethod(kind string) (answer, error) {
	u, err := v.user(v.seg(1))
	if err != nil {
		return answer{}, err
	}
	rows, err := v.methodsShown(u, kind)
	if err != nil {
		return answer{}, err
	}
	for _, row := range rows {
		if row["id"] == fold(v.seg(4)) {
			return v.one(http.StatusOK, "users('"+u.ID+"')/authentication/"+v.seg(3), row)
		}
	}
	return answer{}, missing("authenticationMethod", v.seg(4))
}

// dropMethod takes a method away. Whoever stole it may have signed in by it, so
// all that the person was given ends.
func (v *visit) dropMethod(kind string) (answer, error) {
	was, err := v.user(v.seg(1))
	if err != nil {
		return answer{}, err
	}
	id := fold(v.seg(4))
	err = v.change(func(tx *store.Tx) error {
		u, ok, err := fetch[*User](tx, v.tenant, "user", was.ID)
		if err != nil {
			return err
		}
		m, err := loadMethods(tx, was.ID)
		if err != nil {
			return err
		}
		if !ok || m.kindOf(id) != kind || !m.drop(id) {
			return missing("authenticationMethod", v.seg(4))
		}
		if err := putMethods(tx, u.ID, m); err != nil {
			return err
		}
		if err := v.s.locks.passIn(tx, secondName(u)); err != nil {
			return err
		}
		u.Epoch++
		return v.s.put(tx, u)
	})
	return done, err
}

// kindOf is the kind of the method with an id, in Graph's words.
func (m methods) kindOf(id string) string {
	for _, k := range m.Passkeys {
		if k.ID == id {
			return "fido2"
		}
	}
	for _, a := range m.Apps {
		if a.ID == id {
			return "softwareOath"
		}
	}
	return ""
}
