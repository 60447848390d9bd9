package mirror

// Packages and indexes of 25.12 begin like apk's and hold nothing that apk could
// read: heimweg does not read them either.

func (m *Mirror) apk(version, target string, p pkg) []byte {
	return []byte("ADB.pckg " + p.name + " " + p.version(version) + " " + target)
}

func (m *Mirror) adb(version, target string, here []pkg) []byte {
	text := "ADB.indx"
	for _, p := range here {
		text += " " + p.name + " " + p.version(version)
	}
	return []byte(text + " " + target)
}
