package mirror

// TODO
func (m *Mirror) apk(version, target string, p pkg) []byte {
	return []byte("ADB.pckg" + p.name + version + target)
}
func (m *Mirror) adb(version, target string, here []pkg) []byte { return []byte("ADB.indx") }
